"""The published teacher; the one of one's own is in test_contrast.py and test_rates.py."""

import json
import shutil

import jax
import numpy as np
import pytest
from by_hand import config_of, context_of

from udh_jax.configuration import select
from udh_jax.errors import InputError
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import save_weights
from udh_jax.stages import teacher
from udh_jax.stages.network import facts


@pytest.fixture
def weights(tmp_path):
  """A file of weights of a small_convnet that was never trained."""
  path = tmp_path / "one" / "small.safetensors"
  path.parent.mkdir()
  image = np.zeros((1, 8, 8, 3), np.float32)
  made = jax.jit(create_backbone("small_convnet").init)(jax.random.key(0), image)
  save_weights("small_convnet", made, path)
  return path


def work_on(path):
  config = config_of("psch")
  config.teacher.update(backbone="small_convnet", weights=str(path))
  own = select(config, teacher.PUBLISHED.fields)
  return teacher.PUBLISHED.build(context_of(1, size=4, train=np.arange(4)), own, {})


def test_processes_compare_their_weights_and_all_that_is_read_with_them_but_not_where_they_are(
  weights, monkeypatch
):
  texts = []
  monkeypatch.setattr(
    teacher.mesh_lib, "require_same", lambda what, text: texts.append((what, text))
  )

  def compared(path):
    work_on(path).finish({})
    return texts.pop()

  expected = compared(weights)
  assert expected[0] == "The teacher's weights"
  other = shutil.copytree(weights.parent, weights.parent.with_name("another")) / weights.name
  assert compared(other) == expected
  inputs = {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 8, 8]}
  inputs |= {"crop_pct": 1.0, "interpolation": "bicubic"}
  config = {"architecture": "small_convnet", "pretrained_cfg": inputs}
  other.with_name("config.json").write_text(json.dumps(config))
  assert compared(other) != expected
  other.with_name("config.json").unlink()
  image = np.zeros((1, 8, 8, 3), np.float32)
  made = jax.jit(create_backbone("small_convnet").init)(jax.random.key(1), image)
  save_weights("small_convnet", made, other)
  assert compared(other) != expected


def test_a_process_with_other_weights_ends_the_run(weights, monkeypatch):
  """Two processes, of which the other holds something else."""
  multihost = teacher.mesh_lib.multihost_utils
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(multihost, "process_allgather", lambda own: np.stack([own, own + 1]))
  with pytest.raises(InputError, match="The teacher's weights of process 1 differs from that"):
    work_on(weights).finish({})


def test_the_place_of_the_weights_is_that_of_process_0_in_all(weights, monkeypatch):
  """Outputs are of one shape in all processes, whatever the length of a path."""
  monkeypatch.setattr(teacher.mesh_lib, "text_from_main", lambda text: "/another/place")
  assert facts(work_on(weights).finish({}))["source"] == "/another/place"


def test_another_config_beside_the_weights_is_told_by_the_stages_files(weights):
  config = config_of("psch")
  config.teacher.weights = str(weights)
  before = teacher.PUBLISHED.files(config)
  beside = {"architecture": "small_convnet", "pretrained_cfg": {"mean": [0.1] * 3}}
  weights.with_name("config.json").write_text(json.dumps(beside))
  assert teacher.PUBLISHED.files(config) != before
