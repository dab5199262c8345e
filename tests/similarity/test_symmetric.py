import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from udh_jax.errors import InputError
from udh_jax.sharding import split_rows
from udh_jax.similarity.symmetric import similarity_product, similarity_row_norms

SHARES = [(0.3, 0.6), (0.0, 0.0), (1.0, 0.0), (0.5, 1.0)]


@pytest.fixture
def factors(rng):
  """Teacher outputs of 13 pairs; one text has none."""
  images, texts = rng.normal(size=(2, 13, 5))
  images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
  texts[4] = 0
  return images, texts


def dense(images, texts, image_share, cross_share):
  """The whole matrix, as the definition says."""
  across = images @ texts.T
  own = image_share * images @ images.T + (1 - image_share) * texts @ texts.T
  return (1 - cross_share) * own + cross_share * (across + across.T) / 2


@pytest.mark.parametrize(("image_share", "cross_share"), SHARES)
def test_products_and_row_norms_are_those_of_the_whole_matrix(
  factors, rng, image_share, cross_share
):
  matrix = dense(*factors, image_share, cross_share)
  np.testing.assert_allclose(matrix, matrix.T)
  shares = {"image_share": image_share, "cross_share": cross_share}
  other = rng.normal(size=(13, 3))
  np.testing.assert_allclose(
    similarity_product(*factors, other, **shares), matrix @ other, atol=1e-5
  )
  weights = (rng.random(13) < 0.7).astype(float)
  norms = similarity_row_norms(*factors, weights, **shares)
  np.testing.assert_allclose(norms, matrix**2 @ weights, atol=1e-5)


@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
def test_rows_may_be_split_over_devices(factors, rng, mesh, mapping):
  shares = {"image_share": 0.3, "cross_share": 0.6}
  other = rng.normal(size=(13, 3))
  expected = similarity_product(*factors, other, **shares)
  function = functools.partial(similarity_product, **shares, axis_name="data")
  rows = [split_rows(mesh, x) for x in (*factors, other)]  # padded to 16 with zeros
  if mapping == "shard_map":
    spec = PartitionSpec("data")
    found = jax.shard_map(function, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec)(*rows)
  else:
    blocks = [np.asarray(x).reshape(8, 2, -1) for x in rows]
    found = jax.pmap(function, axis_name="data")(*blocks).reshape(16, 3)
  np.testing.assert_allclose(found[:13], expected, atol=1e-5)


def test_invalid_input_is_refused(factors):
  images, texts = factors
  with pytest.raises(InputError, match=r"\(13, 5\), \(12, 5\)"):
    similarity_product(images, texts[:12], images, image_share=0.5, cross_share=0.5)
  with pytest.raises(InputError, match="cross_share is 2"):
    similarity_product(images, texts, images, image_share=0.5, cross_share=2)
