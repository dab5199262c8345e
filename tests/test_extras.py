"""A missing optional dependency is one line that says what to install."""

import json
import sys

import numpy as np
import pytest

from udh_jax.data.readers import arrays, digits, tfds
from udh_jax.errors import InputError
from udh_jax.extras import require_extra, require_installed
from udh_jax.report import plots
from udh_jax.retrieval import HammingIndex
from udh_jax.runtime.log import Events


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


@pytest.mark.parametrize(
  ("module", "use", "extra"),
  [
    ("sklearn.datasets", lambda folder: digits.read_digits(), "train"),
    ("scipy.io", lambda folder: arrays.open_arrays(folder / "x.mat").__enter__(), "train"),
    ("h5py", lambda folder: arrays.open_arrays(folder / "x.mat").__enter__(), "train"),
    ("tensorflow_datasets", lambda folder: tfds._open_prepared("cifar10", folder, ""), "tfds"),
    (
      "matplotlib.figure",
      lambda folder: plots.bit_statistics(folder, np.ones(2), np.eye(2), title=""),
      "report",
    ),
    ("clu.metric_writers", lambda folder: Events(folder).write(0, {}), "train"),
    ("faiss", lambda folder: HammingIndex(np.zeros((1, 1), np.uint8), ["a"]).to_faiss(), "faiss"),
  ],
)
def test_every_use_names_the_extra(module, use, extra, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(InputError, match=rf'^{module} is not installed; .* "udh_jax\[{extra}\]"\.$'):
    use(tmp_path)
