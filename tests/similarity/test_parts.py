"""Parts, pairs and the structure of distances against plain loops in numpy's float64."""

import jax
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.losses.pairs import pair_loss
from udh_jax.models.parts import attention_maps, part_vectors
from udh_jax.similarity.parts import part_similarity, pseudo_label_pairs
from udh_jax.similarity.structure import HalfGaussians, fit_half_gaussians, structure_signs


def cosine(a, b):
  return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def plain_parts(feature_map, groups, temperature):
  """Attention ``[m][g][h, w]`` and parts ``[m][g][C / G]``, one after another."""
  m, height, width, channels = feature_map.shape
  size = channels // groups
  attention, parts = np.zeros((m, height, width, groups)), np.zeros((m, groups, size))
  for i in range(m):
    for g in range(groups):
      block = feature_map[i, :, :, g * size : (g + 1) * size].astype(np.float64)
      scores = np.exp(block.mean(axis=2) / temperature)
      attention[i, :, :, g] = scores / scores.sum()
      for y in range(height):
        for x in range(width):
          parts[i, g] += attention[i, y, x, g] * block[y, x]
  return attention, parts


@pytest.fixture
def feature_map(rng):
  return np.maximum(rng.normal(size=(5, 3, 4, 12)), 0).astype(np.float32)


@pytest.mark.parametrize(("groups", "temperature"), [(1, 1.0), (3, 0.2), (12, 1.0)])
def test_parts_and_their_similarity_agree_with_plain_loops(feature_map, groups, temperature):
  attention, parts = plain_parts(feature_map, groups, temperature)
  found = attention_maps(feature_map, groups=groups, temperature=temperature)
  np.testing.assert_allclose(found, attention, rtol=1e-5)
  np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
  vectors = part_vectors(feature_map, found)
  np.testing.assert_allclose(vectors, parts, rtol=1e-4, atol=1e-6)
  expected = [
    [np.mean([cosine(a, b) for a, b in zip(one, other, strict=True)]) for other in parts]
    for one in parts
  ]
  similarity = jax.jit(part_similarity)(vectors)
  if groups < 12:  # a part of one channel may be 0, which has no cosine
    np.testing.assert_allclose(similarity, expected, rtol=1e-4)
  np.testing.assert_allclose(similarity, similarity.T)


def test_one_group_on_one_position_is_the_cosine_of_features(rng):
  features = rng.normal(size=(4, 1, 1, 6))
  similarity = part_similarity(part_vectors(features, attention_maps(features, groups=1)))
  rows = features[:, 0, 0]
  expected = [[cosine(a, b) for b in rows] for a in rows]
  np.testing.assert_allclose(similarity, expected, rtol=1e-4, atol=1e-6)


def test_an_image_of_zeros_is_like_nothing(feature_map):
  feature_map[2] = 0
  similarity = part_similarity(part_vectors(feature_map, attention_maps(feature_map, groups=3)))
  assert np.isfinite(similarity).all()
  np.testing.assert_array_equal(similarity[2], 0)


@pytest.mark.parametrize("apart", [-1.0, 0.0])
def test_pairs_are_soft_within_a_pseudo_class_and_apart_between(rng, apart):
  labels = np.array([[0, 2], [1, 2], [0, -1], [-1, -1], [1, 0]])
  similarity = rng.uniform(-1, 1, (5, 5))
  for several in (labels, labels[:, :1]):
    targets, known = pseudo_label_pairs(several, similarity, apart=apart)
    for i in range(5):
      for j in range(5):
        said = [
          similarity[i, j] if one == other else apart
          for one, other in zip(several[i], several[j], strict=True)
          if one >= 0 and other >= 0
        ]
        assert known[i, j] == len(said) / several.shape[1]
        np.testing.assert_allclose(targets[i, j], np.mean(said) if said else 0, rtol=1e-6)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: attention_maps(np.ones((1, 2, 2, 12)), groups=5),
      "12 channels cannot be split into 5 equal groups; .* such as 4",
    ),
    (lambda: attention_maps(np.ones((1, 2, 2, 12)), groups=0), "into 0 equal groups"),
    (lambda: attention_maps(np.ones((1, 2, 12)), groups=1), r"shape \(1, 2, 12\)"),
    (
      lambda: attention_maps(np.ones((1, 2, 2, 4)), groups=1, temperature=0.0),
      "temperature is 0.0",
    ),
    (
      lambda: part_vectors(np.ones((1, 2, 2, 4)), np.ones((1, 3, 2, 1))),
      r"\(1, 2, 2, 4\) and \(1, 3, 2, 1\)",
    ),
    (lambda: part_similarity(np.ones((2, 3))), r"shape \(2, 3\)"),
    (
      lambda: pseudo_label_pairs(np.ones((3, 4), bool), np.ones((3, 3))),
      r"expected integers \[m, H\]",
    ),
    (lambda: pseudo_label_pairs(np.zeros((3, 1), int), np.ones((3, 2))), r"shape \(3, 2\)"),
    (
      lambda: pseudo_label_pairs(np.zeros((3, 1), int), np.ones((3, 3)), apart=-2.0),
      "apart is -2.0, expected -1 to 1",
    ),
    (lambda: pair_loss(np.ones((3, 2)), np.ones((2, 2)), np.ones((3, 3))), r"\(2, 2\)"),
    (
      lambda: pair_loss(np.ones((3, 2)), np.ones((3, 3)), np.ones((3, 3)), weights=np.ones(2)),
      r"weights have shape \(2,\)",
    ),
    (lambda: fit_half_gaussians(np.ones((1, 2))), "1 rows make no pair"),
    (lambda: fit_half_gaussians(np.ones(4)), r"shape \(4,\)"),
    (
      lambda: structure_signs(np.ones((3, 2)), HalfGaussians(1.0, 0.1, 0.1), deviations=-1),
      "deviations is -1",
    ),
  ],
)
def test_bad_input_is_refused_in_one_line(call, message):
  with pytest.raises(InputError, match=message) as error:
    call()
  assert "\n" not in str(error.value)
