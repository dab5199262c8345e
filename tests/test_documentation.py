"""The examples of the documentation are run, and say what they print."""

import doctest
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
WITH_EXAMPLES = [page for page in PAGES if ">>> " in page.read_text()]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.stem)
def test_examples_print_what_they_say(page):
  options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
  assert doctest.testfile(str(page), module_relative=False, optionflags=options).failed == 0


def test_every_page_of_the_api_has_examples():
  assert {page for page in PAGES if page.parent.name == "api"} <= set(WITH_EXAMPLES)
