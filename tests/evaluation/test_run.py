from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.coding.binary import pack_codes
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.evaluation import images, pairs
from udh_jax.evaluation.found import Codes
from udh_jax.evaluation.run import evaluate, gather
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.plan import CodeSource, Drawing, Plan
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows

NUM_ROWS = 13


@pytest.fixture
def context(mesh):
  rows = np.arange(NUM_ROWS)
  dataset = Dataset(
    name="made",
    images=np.zeros((NUM_ROWS, 2, 2, 3), np.uint8),
    image_shape=(2, 2, 3),
    labels=rows % 2,
    names=[str(row) for row in rows],
    class_names=["even", "odd"],
    splits=Splits(train=rows, database=rows, query=rows[:3]),
    protocol="made",
    digest="",
  )
  return Context(mesh, dataset)


@pytest.fixture
def outputs(mesh, rng):
  relaxed = rng.normal(size=(NUM_ROWS, 11)).astype(np.float32)
  relaxed[2, 3] = 0.0  # counts as +1
  packed = rng.integers(0, 256, (NUM_ROWS, 2), dtype=np.uint8)
  labels = rng.integers(0, 4, (NUM_ROWS, 1), dtype=np.int32)
  on_devices = {
    "encode": {"codes": split_rows(mesh, packed)},
    "similarity": {"images": split_rows(mesh, relaxed)},
    "cluster": {"labels": split_rows(mesh, labels, fill=-1)},
    "network": mesh_lib.replicate(mesh, {"variables": {"kernel": np.ones((2, 3))}}),
    "baselines": {},
  }
  return on_devices, packed, relaxed, labels


PLAN = Plan(
  "Own",
  (),
  "network",
  (
    CodeSource("Own", {"image": ("encode", "codes")}),
    CodeSource("Relaxed", {"image": ("similarity", "images")}),
    CodeSource("Too long", {"image": ("baselines", "itq")}),
  ),
  clusters=("cluster",),
  drawings=(Drawing(("network",), lambda *_: []),),
)


def test_what_evaluation_reads_is_whole_and_in_numpy(context, outputs):
  on_devices, packed, relaxed, labels = outputs
  found = gather(context, PLAN, on_devices)
  assert list(found.codes) == ["Own", "Relaxed"]  # a stage did not make the third
  np.testing.assert_array_equal(found.codes["Own"].query["image"], packed)
  signs = pack_codes(np.where(relaxed >= 0, 1, -1))
  np.testing.assert_array_equal(found.codes["Relaxed"].query["image"], signs)
  assert found.codes["Own"].database is found.codes["Own"].query
  np.testing.assert_array_equal(found.clusters[0], labels)
  for network in (found.network, found.drawn[0]["network"]):
    assert isinstance(network["variables"]["kernel"], np.ndarray)


def test_what_process_0_writes_cannot_gather_or_restore(context, outputs, monkeypatch, tmp_path):
  on_devices = outputs[0]

  def write(config, plan, dataset, found, workdir):
    return {"Own": float(mesh_lib.to_host(on_devices["encode"]["codes"]).mean())}

  monkeypatch.setattr(images, "write", write)
  with pytest.raises(RuntimeError, match="gathering an array within 'score'"):
    evaluate(context, None, PLAN, on_devices, tmp_path)


def test_one_code_for_a_pair_has_no_neighbours_within_a_side(rng):
  own = {side: rng.integers(0, 256, (6, 1), dtype=np.uint8) for side in ("image", "text")}
  learned = rng.integers(0, 256, (6, 1), dtype=np.uint8)
  codes = {"Own": Codes(own, own), "learned": Codes(own, {"image": learned, "text": learned})}
  splits = Splits(train=np.arange(4), database=np.arange(4), query=np.arange(4, 6))
  data = SimpleNamespace(splits=splits, labels=np.arange(6) % 2)
  score = {"at": 2, "curve": (), "denominator": "retrieved", "ties": "index", "empty": "zero"}
  score["radius"] = 2
  config = ConfigDict({"score": score, "bits": 8})
  found = pairs._score(config, data, codes)
  assert list(found["Own"]) == list(pairs.DIRECTIONS)
  assert list(found["learned"]) == list(pairs.ACROSS)
  whole, shared = pairs._table(config, found).rows
  assert all(whole) and len(whole) == len(shared) == 7
  assert [bool(cell) for cell in shared] == [True, True, True, False, False, True, True]
