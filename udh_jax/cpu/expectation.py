"""Expected average precision over the orders of ties, one query after another."""

import numpy as np

from udh_jax.cpu.compiled import compiled, fixed

_DENOMINATORS = ("retrieved", "min_k", "all")


def expected_average_precision(
  items: np.ndarray, relevant: np.ndarray, cut: int, denominator: str, harmonic: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """E[AP] of each query over the orders of ties, and the chance that it retrieves something.

  The closed form is that of `udh_jax.retrieval.metrics`.

  Args:
    items: Items of each of g groups of equal distance. Integer array of shape ``[q, g]``.
    relevant: Relevant ones among them. Integer array of shape ``[q, g]``.
    cut: The cut-off, at least 1.
    denominator: "retrieved", "min_k" or "all".
    harmonic: Sums of 1 / rank over the first ranks, from none to the cut-off.

  Returns:
    Two float64 arrays of shape ``[q]``.
  """
  out = np.empty((2, len(items)))
  kind = _DENOMINATORS.index(denominator)
  _expected(*map(fixed, (items, relevant)), cut, kind, fixed(harmonic), out)
  return out[0], out[1]


@compiled()
def _expected(items, relevant, cut, denominator, harmonic, out):
  for query in range(len(items)):
    total = relevant[query].sum()
    before, found, base, n, r = 0, 0, 0.0, 0, 0
    for group in range(items.shape[1]):
      n, r = items[query, group], relevant[query, group]
      if before + n > cut:
        break
      base += _precisions(before, found, n, r, harmonic)
      before, found, n, r = before + n, found + r, 0, 0
    # Of the group that the cut goes through, m items are taken; y of them are relevant.
    m = cut - before if n > 0 else 0
    least, most = max(0, m - (n - r)), min(m, r)
    mode = min(max((m + 1) * (r + 1) // (n + 2), least), most)
    weights = value = kept = 0.0
    for upward in (True, False):  # from the likeliest y to either side, until nothing is left
      y, weight = (mode, 1.0) if upward else (mode - 1, 0.0)
      if not upward and y >= least:
        weight = 1 / _ratio(y, n, r, m)
      while least <= y <= most and weight > 0:
        hits = found + y
        size = hits if denominator == 0 else min(cut, total) if denominator == 1 else total
        weights += weight
        value += weight * (base + _precisions(before, found, m, y, harmonic)) / max(size, 1)
        if hits > 0:
          kept += weight
        if upward:
          weight *= _ratio(y, n, r, m)
        elif y > least:
          weight /= _ratio(y - 1, n, r, m)
        y += 1 if upward else -1
    out[0, query], out[1, query] = value / weights, kept / weights


@compiled()
def _ratio(y, n, r, m):
  """Chance of y + 1 relevant ones among m of n items, r of them relevant, over that of y."""
  return (r - y) * (m - y) / ((y + 1) * (n - r - m + y + 1))


@compiled()
def _precisions(before, found, n, r, harmonic):
  """Expected sum of precisions at the relevant ranks of a group in random order."""
  if n == 0:
    return 0.0
  slope = (r - 1) / max(n - 1, 1)
  spread = harmonic[before + n] - harmonic[before]
  return r / n * (slope * n + (found + 1 - (before + 1) * slope) * spread)
