"""The student's objective written out, and made pairs to try it on."""

import numpy as np

SHARES = {"image_share": 0.3, "cross_share": 0.6}


def made_pairs(rng):
  """Factors and outputs for 11 training pairs of 13, 5 of them sampled, 6 bits."""
  images, texts = rng.normal(size=(2, 13, 4))
  images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
  weights = np.ones(13)
  weights[[2, 9]] = 0
  sampled = np.array([12, 0, 5, 7, 3])
  outputs = np.tanh(rng.normal(size=(2, 5, 6)))
  codes = np.where(rng.normal(size=(13, 6)) >= 0, 1.0, -1.0) * weights[:, None]
  return {"images": images, "texts": texts}, weights, sampled, outputs, codes


def dense_objective(factors, weights, sampled, outputs, codes, gamma):
  """The student's objective term by term, with the whole matrix."""
  images, texts = factors["images"], factors["texts"]
  across = images @ texts.T
  own = 0.3 * images @ images.T + 0.7 * texts @ texts.T
  matrix = 0.4 * own + 0.6 * (across + across.T) / 2
  train = np.flatnonzero(weights)
  bits = codes.shape[1]
  total = 0.0
  for output in outputs:
    for row, pair in enumerate(sampled):
      total += sum((output[row] @ codes[j] - bits * matrix[pair, j]) ** 2 for j in train)
      total += gamma * ((codes[pair] - output[row]) ** 2).sum()
  return total
