"""Column potentials of entropic transport at small epsilon, for costs that come in blocks.

A hard assignment is only as good as the potentials that it is rounded from, and at the small
epsilon that makes them good Sinkhorn's iteration takes thousands of passes over the rows. Newton's
method on the same fixed point, followed down a path of falling epsilon, takes about ten.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax import sharding
from udh_jax.clustering import sinkhorn
from udh_jax.numerics import matmul

# Rows in the Jacobian, at n K^2 operations. It steers the search and does not decide where it ends,
# but at small epsilon few rows count, and a sample of half of them doubles the passes.
JACOBIAN_ROWS = 65536

RADIUS = 10.0  # First limit on a step, in units of epsilon.
READY = 0.5  # Residual below which epsilon may fall ...
LOST = 2.0  # ... and above which it fell too far.
SAMPLED_TOLERANCE = 1e-2  # Least tolerance where rows are left out of the Jacobian.
STUCK = 0.01  # Radius at which it ends: five steps in a row led nowhere, which rounding can cause.

# Runs a function (carry, features [m, d], cost [m, K], weights [m], start) -> carry over blocks.
FoldCosts = Callable[[Callable[[Any, jax.Array, jax.Array, jax.Array, Any], Any], Any], Any]


class _Point(NamedTuple):
  """Potentials, and what one pass over the rows says of them.

  Attributes:
    potential: Array of shape ``[K]``.
    epsilon: Scalar.
    residual: Step of Sinkhorn's iteration in units of epsilon. Array of shape ``[K]``.
    acting: Whether a bound acts on the column; the others go to potential 0. Bool ``[K]``.
    transfer: Answer of the log masses to the potentials, 1 less the Jacobian. Array ``[K, K]``
      whose rows sum to 1; Sinkhorn's iteration contracts by it.
    dual: What the right potentials maximise. Scalar.
  """

  potential: jax.Array
  epsilon: jax.Array
  residual: jax.Array
  acting: jax.Array
  transfer: jax.Array
  dual: jax.Array

  @property
  def error(self):
    return jnp.max(jnp.abs(self.residual))


class _Search(NamedTuple):
  """The point that stands, the next to try, the limit on steps, and the next fall of epsilon."""

  point: _Point
  potential: jax.Array
  epsilon: jax.Array
  radius: jax.Array
  fall: jax.Array
  passes: jax.Array


def _stride(weights, axis_name):
  """Every how many rows one enters the Jacobian; the same on any number of shards."""
  shards = 1 if axis_name is None else lax.axis_size(axis_name)
  return max(1, shards * weights.shape[0] // JACOBIAN_ROWS)


def _measure(fold_costs, weights, columns, potential, epsilon, axis_name):
  """One pass over the rows."""
  num_columns = potential.shape[0]
  stride = _stride(weights, axis_name)
  low, high = columns

  def add(carry, features, cost, weights, start):
    kernel, total, row_potential = sinkhorn.row_kernel(cost, potential, epsilon)
    scaling = weights / total  # [m]
    sample = kernel[::stride] * scaling[::stride, None]
    mass, transfer, dual = carry
    return (
      mass + jnp.sum(scaling[:, None] * kernel, axis=0),
      transfer + matmul(sample.T, sample),
      dual + jnp.sum(row_potential * weights),
    )

  zero = jnp.zeros_like(potential)
  start = zero, jnp.zeros((num_columns, num_columns), zero.dtype), zero[0]
  mass, transfer, dual = sharding.psum(fold_costs(add, start), axis_name)
  count = sharding.psum(jnp.sum(weights), axis_name)
  tiny = jnp.finfo(zero.dtype).tiny
  aim = sinkhorn.update(potential, jnp.log(jnp.maximum(mass / count, tiny)), columns, epsilon)
  return _Point(
    potential,
    epsilon,
    (aim - potential) / epsilon,
    (aim != 0) | (low == high),
    transfer / jnp.maximum(jnp.sum(transfer, axis=1, keepdims=True), tiny),
    dual / count + jnp.sum(jnp.where(potential > 0, low, high) * potential),
  )


def _newton_step(point, columns, radius):
  """The next potentials: Sinkhorn's step summed over all the iterations to come."""
  low, high = columns
  num_columns = low.shape[0]
  # Equal bounds fix the potentials up to a constant, along which nothing must be summed.
  free = jnp.all(low == high)
  residual = point.residual - jnp.where(free, jnp.sum(point.residual * low), 0)
  contraction = (1 - 1e-5) * point.acting[:, None] * point.transfer
  step = jnp.linalg.solve(jnp.eye(num_columns, dtype=low.dtype) - contraction, residual)
  step = step - jnp.where(free, jnp.mean(step), 0)
  length = jnp.max(jnp.abs(step))
  new = point.potential + point.epsilon * step * jnp.minimum(1, radius / jnp.maximum(length, 1e-30))
  # A column whose bounds stop acting on the way goes to 0 first.
  return jnp.where((low < high) & (new * point.potential < 0), 0, new)


def solve_potentials(
  fold_costs: FoldCosts,
  potential: jax.Array,
  columns: sinkhorn.Columns,
  *,
  weights: jax.Array,
  epsilon_start: jax.Array,
  epsilon: jax.Array,
  tolerance: float,
  max_passes: int,
  axis_name: str | None,
) -> jax.Array:
  """Finds the column potentials at which the plan's columns keep their bounds.

  Args:
    fold_costs: Runs a function over the blocks of rows.
    potential: Start values, best those of a similar problem. Array of shape ``[K]``.
    columns: Bounds of the columns' shares of the rows.
    weights: 1, or 0 for a padded row. Array of shape ``[n]``.
    epsilon_start: Where epsilon starts; large if the start values are far off. Scalar.
    epsilon: Where epsilon ends. Scalar.
    tolerance: Share of their mass that columns may be off by.
    max_passes: Most passes over the rows.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    The potentials. They are the best of the passes made, at the lowest epsilon reached.

  References:
    Brauer, Clason, Lorenz and Wirth, A Sinkhorn-Newton method for entropic optimal transport, 2017.
    The path, the safeguards and the bounds are our own.
  """
  if _stride(weights, axis_name) > 1:
    tolerance = max(tolerance, SAMPLED_TOLERANCE)

  def unfinished(search):
    point = search.point
    solved = (point.epsilon <= epsilon) & (point.error <= tolerance)
    return (search.passes < max_passes) & ~solved & (search.radius > STUCK)

  def advance(search):
    old = search.point
    new = _measure(fold_costs, weights, columns, search.potential, search.epsilon, axis_name)
    first, fell = search.passes == 0, new.epsilon < old.epsilon
    # Far from the solution whole groups of columns have to rise by many epsilon before any residual
    # changes; there the dual says that the way is right.
    better = (new.error < old.error) | (new.dual > old.dual + 1e-6 * jnp.abs(old.dual))
    accept = first | jnp.where(fell, new.error < LOST, better)
    point = jax.tree.map(lambda new, old: jnp.where(accept, new, old), new, old)
    radius = jnp.where(fell, RADIUS, search.radius * jnp.where(accept, 2.0, 0.25))
    bolder, milder = jnp.maximum(search.fall**1.3, 0.1), jnp.sqrt(search.fall)
    fall = jnp.where(fell, jnp.where(accept, bolder, milder), search.fall)
    lower = jnp.maximum(point.epsilon * fall, epsilon)
    return _Search(
      point,
      _newton_step(point, columns, radius),
      jnp.where(point.error < READY, lower, point.epsilon),
      radius,
      fall,
      search.passes + 1,
    )

  dtype = potential.dtype
  first_epsilon = jnp.maximum(jnp.asarray(epsilon_start, dtype), epsilon)
  nothing = _Point(
    potential,
    first_epsilon,
    jnp.full_like(potential, jnp.inf),
    jnp.zeros(potential.shape, bool),
    jnp.zeros((*potential.shape, *potential.shape), dtype),
    jnp.asarray(-jnp.inf, dtype),
  )
  scalars = jnp.asarray(RADIUS / 2, dtype), jnp.asarray(0.3, dtype), jnp.int32(0)
  search = _Search(nothing, potential, first_epsilon, *scalars)
  return lax.while_loop(unfinished, advance, search).point.potential
