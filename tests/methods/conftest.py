"""What runs of several methods share."""

import jax
import numpy as np
import pytest

from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import save_weights


@pytest.fixture(autouse=True)
def small_galleries(monkeypatch):
  """Runs in this process draw two queries of a gallery and not eight, which takes seconds each."""
  from udh_jax.report import sections

  monkeypatch.setattr(sections, "GALLERY_QUERIES", 2)


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory):
  """A file of weights of a small_convnet that was never trained."""
  path = tmp_path_factory.mktemp("weights") / "small.safetensors"
  image = np.zeros((1, 8, 8, 3), np.float32)
  save_weights(
    "small_convnet", jax.jit(create_backbone("small_convnet").init)(jax.random.key(0), image), path
  )
  return str(path)


@pytest.fixture
def made(tmp_path, rng):
  """Features of 150 pairs of three classes; the texts tell the class, the images less surely."""
  labels = np.arange(150) % 3
  centres = rng.normal(size=(3, 6))
  path = tmp_path / "made.npz"
  np.savez(
    path,
    image=(centres[labels] + 0.8 * rng.normal(size=(150, 6))).astype(np.float32),
    text=rng.random((150, 8)) < np.where(np.arange(8) % 3 == labels[:, None], 0.9, 0.1),
    label=labels,
  )
  return path
