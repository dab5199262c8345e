"""The examples of the documentation are run, and say what they print."""

import doctest
import pathlib
import re

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


def anchors(page):
  """What a link may name behind the # of a page: its headings, as GitHub and MkDocs write them."""
  headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
  return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_what_the_code_refers_to_is_there():
  references = {
    (file.name, *found)
    for folder in ("udh_jax", "configs")
    for file in (ROOT / folder).rglob("*.py")
    for found in re.findall(r"\b(docs/[\w/]+\.md|methods\.md)(?:#([\w-]+))?", file.read_text())
  }
  assert len(references) >= 8
  for file, page, anchor in references:
    assert (ROOT / page).is_file(), f"{file} refers to {page}"
    assert not anchor or anchor in anchors(ROOT / page), f"{file} refers to {page}#{anchor}"


def test_every_page_is_in_the_navigation():
  listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
  assert sorted(listed) == [str(page.relative_to(ROOT / "docs")) for page in PAGES]
