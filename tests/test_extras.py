"""A missing optional dependency is one line that says what to install."""

import json

import pytest

from udh_jax.errors import InputError
from udh_jax.extras import require_extra, require_installed


def test_a_module_that_is_there():
  assert require_extra("json", extra="any") is json
  assert require_extra("os.path", extra="any").join("a", "b") == "a/b"


@pytest.mark.parametrize("module", ["no_such_module", "json.no_such_part", "no_such.part"])
def test_a_missing_module_names_its_extra(module):
  with pytest.raises(InputError) as caught:
    require_extra(module, extra="postgresql")
  assert str(caught.value) == (f'{module} is not installed; run pip install "udh_jax[postgresql]".')


def test_a_module_that_lacks_something_itself(tmp_path, monkeypatch):
  (tmp_path / "broken_extra.py").write_text("import no_such_dependency\n")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(InputError, match=r"cannot be imported \(No module named 'no_such_dep"):
    require_extra("broken_extra", extra="x")


def test_what_is_needed_later_is_asked_for_at_the_start():
  require_installed("json", extra="any")
  with pytest.raises(InputError, match=r'^no_such_module is .* "udh_jax\[report\]"\.$'):
    require_installed("no_such_module", extra="report")
