"""Encoders with random weights, small ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from udh_jax.encoders.pair import PairEncoder, pair_module

PAIR_ABOUT = {
  "backbone": "",
  "padding": "",
  "mean": [],
  "std": [],
  "dtype": "float32",
  "image_size": 0,
  "bits": 12,
  "hidden": 3,
  "dropout": 0.0,
  "picture_size": 0,
  "image_width": 5,
  "text_width": 4,
  "words": ["sky", "sea", "dog", "new york"],
}


@pytest.fixture(scope="session")
def image_encoder(small_encoder):
  return small_encoder(image_size=8, picture_size=8)


@pytest.fixture(scope="session")
def pair_encoder():
  module = pair_module(PAIR_ABOUT, "float32")
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 5)), jnp.zeros((1, 4)))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32) + 0.1, shapes)
  return PairEncoder(variables, PAIR_ABOUT)


class Spy:
  """Stands where an encoder does, and notes the sizes of the batches that it was given."""

  def __init__(self, bits=12, side=8):
    self.about, self.digest = {"bits": bits, "picture_size": side}, "a digest"
    self.sizes = []

  def __call__(self, pictures):
    self.sizes.append(len(pictures))
    bits = pictures.reshape(len(pictures), -1)[:, : self.about["bits"]] > 127
    return np.packbits(bits, axis=1)


@pytest.fixture
def spy():
  return Spy()


@pytest.fixture
def save_pictures(tmp_path):
  """Writes small random pictures of these names to a folder."""

  def save(*names, folder="pictures"):
    rng = np.random.default_rng(0)
    for name in names:
      path = tmp_path / folder / name
      path.parent.mkdir(parents=True, exist_ok=True)
      with path.open("wb") as file:  # Pillow itself takes no name of undecodable bytes
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), dtype=np.uint8)).save(file, "PNG")
    return tmp_path / folder

  return save
