"""Entropic optimal transport, stable as in the log domain.

The solver works on the column potentials alone: for given column potentials the row potentials that
meet the row marginals are known in closed form, so the plan always has exact rows and the error is
that of the columns.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax import errors, sharding
from udh_jax.arrays import Array
from udh_jax.numerics import matmul

# A kernel is scaled until a column's factor leaves exp(+-DRIFT); then a step in the log domain
# absorbs the factors. float32 ends near exp(-87): what underflows is below exp(-57) of its row.
DRIFT = 30.0
LOWEST = -1e30  # Stands for log 0 where differences have to stay numbers.


class SinkhornOutput(NamedTuple):
  """Potentials of an entropic transport plan, plan = exp((row + column - cost) / epsilon).

  Attributes:
    row_potential: Array of shape ``[n]``, -inf where the row marginal is 0.
    column_potential: Array of shape ``[K]``, -inf where the column marginal is 0.
    error: Largest violation of a column marginal, relative to it. Scalar. The row marginals are met
      up to rounding.
    iterations: Number of updates of the column potentials. Scalar int32.
    converged: Whether ``error`` is at most the tolerance. Scalar bool.
  """

  row_potential: jax.Array
  column_potential: jax.Array
  error: jax.Array
  iterations: jax.Array
  converged: jax.Array


class Columns(NamedTuple):
  """Bounds of the columns' masses, both of shape ``[K]``.

  Equal bounds are the ordinary marginal. Where they differ, a potential of 0 means that the bounds
  do not act.
  """

  low: jax.Array
  high: jax.Array


class _State(NamedTuple):
  """Column potentials, their update, the error before it, and the updates made so far."""

  potential: jax.Array
  proposal: jax.Array
  error: jax.Array
  iterations: jax.Array


def row_kernel(
  cost: jax.Array, potential: jax.Array, epsilon: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """The plan whose rows sum to 1 as a kernel, its row sums, and its row potentials.

  Differences are taken before the division, so that a tiny epsilon or a large cost cannot make
  infinity minus infinity, and the largest entry of a row is 1.

  Args:
    cost: Array of shape ``[m, K]``.
    potential: Column potentials, at least one finite. Array of shape ``[K]``.
    epsilon: Scalar.

  Returns:
    The kernel ``[m, K]``, its row sums ``[m]``, and the row potentials ``[m]``.
  """
  score = potential - cost  # [m, K]
  top = jnp.max(score, axis=1)  # [m]
  # The barrier keeps XLA from computing the exponentials again for each of their uses.
  kernel = lax.optimization_barrier(jnp.exp((score - top[:, None]) / epsilon))
  total = jnp.sum(kernel, axis=1)
  return kernel, total, -top - epsilon * jnp.log(total)


def update(
  potential: jax.Array, log_mass: jax.Array, columns: Columns, epsilon: jax.Array
) -> jax.Array:
  """Sinkhorn's update of the column potentials.

  With the row potentials held, the entropic projection onto bounds leaves a column at potential 0
  if its mass then lies within them, and otherwise takes it to the nearer bound.

  Args:
    potential: Array of shape ``[K]``.
    log_mass: Logarithm of the masses at ``potential``. Array of shape ``[K]``.
    columns: Bounds of the masses.
    epsilon: Scalar.

  Returns:
    Column potentials of shape ``[K]``, -inf where the mass has to be 0.
  """
  neutral = potential - epsilon * log_mass
  low = neutral + epsilon * jnp.log(columns.low)
  high = neutral + epsilon * jnp.log(columns.high)
  return jnp.where(columns.high > 0, jnp.clip(0.0, low, high), -jnp.inf)


@functools.partial(jax.jit, static_argnames="axis_name")
def _solve(cost, row_marginals, column_marginals, epsilon, max_iterations, limit, *, axis_name):
  """Iterates on the column potentials until the error is at most the limit.

  The kernel of the current potentials is computed once and then scaled by matrix-vector products,
  which equal steps in the log domain up to rounding and are several times cheaper. An update that
  would leave the safe range is made in the log domain instead and starts a new kernel.
  """
  columns = Columns(column_marginals, column_marginals)
  used = column_marginals > 0

  def unfinished(state):
    return (state.error > limit) & (state.iterations < max_iterations)

  def propose(potential, log_mass):
    proposal = update(potential, log_mass, columns, epsilon)
    step = jnp.where(used, proposal - potential, 0.0) / epsilon
    return proposal, jnp.max(jnp.abs(jnp.expm1(-step)))

  def log_step(potential):
    score = potential - cost
    score = (score - jnp.max(score, axis=1, keepdims=True)) / epsilon
    log_plan = jax.nn.log_softmax(score, axis=1) + jnp.log(row_marginals)[:, None]  # [n, K]
    top = sharding.pmax(jnp.maximum(jnp.max(log_plan, axis=0), LOWEST), axis_name)
    total = sharding.psum(jnp.sum(jnp.exp(log_plan - top), axis=0), axis_name)
    return propose(potential, top + jnp.log(total))

  def advance(state):
    origin = state.proposal
    kernel = row_kernel(cost, origin, epsilon)[0]  # [n, K]

    def scale(state):
      factor = jnp.where(used, jnp.exp((state.proposal - origin) / epsilon), 0.0)  # [K]
      rows = row_marginals / matmul(kernel, factor)  # [n]
      # A reduction here is both faster on the CPU and 20 times more exact than a product.
      mass = factor * jnp.sum(rows[:, None] * kernel, axis=0)  # [K]
      proposal, error = propose(state.proposal, jnp.log(sharding.psum(mass, axis_name)))
      return _State(state.proposal, proposal, error, state.iterations + 1)

    def safe(state):
      drift = jnp.where(used, jnp.abs(state.proposal - origin), 0.0)
      return jnp.max(drift) <= DRIFT * epsilon

    state = lax.while_loop(lambda state: unfinished(state) & safe(state), scale, scale(state))
    proposal, error = lax.cond(
      safe(state), lambda: (state.proposal, state.error), lambda: log_step(state.potential)
    )
    return state._replace(proposal=proposal, error=error)

  potential = jnp.where(used, 0.0, -jnp.inf).astype(cost.dtype)
  # Measuring the start values is not an update, hence -1.
  start = _State(potential, potential, jnp.asarray(jnp.inf, cost.dtype), jnp.int32(-1))
  state = lax.while_loop(unfinished, advance, start)
  row_potential = row_kernel(cost, state.potential, epsilon)[2] + epsilon * jnp.log(row_marginals)
  return SinkhornOutput(
    row_potential, state.potential, state.error, state.iterations, state.error <= limit
  )


def _marginal(name, marginal, size, axis_name, dtype):
  """A checked marginal, uniform over all shards' entries where none is given."""
  if marginal is None:
    return jnp.full((size,), 1.0 / size, dtype) / sharding.psum(jnp.ones((), dtype), axis_name)
  errors.require(
    jnp.shape(marginal) == (size,),
    f"sinkhorn: {name} has shape {jnp.shape(marginal)}, the cost asks for ({size},).",
  )
  errors.require_finite(f"sinkhorn: {name}", marginal)
  if not errors.is_traced(marginal):
    errors.require(
      bool((np.asarray(marginal) >= 0).all()),
      f"sinkhorn: {name} holds negative values; masses are 0 or more.",
    )
  return jnp.asarray(marginal, dtype)


def sinkhorn(
  cost: Array,
  *,
  epsilon: float,
  row_marginals: Array | None = None,
  column_marginals: Array | None = None,
  max_iterations: int = 1000,
  tolerance: float | None = 1e-3,
  axis_name: str | None = None,
) -> SinkhornOutput:
  """Solves entropic optimal transport between rows and columns.

  Minimises sum(plan * cost) + epsilon * sum(plan * (log plan - 1)) over plans with the given
  marginals, by Sinkhorn's alternating scaling, stable for any epsilon that float32 can tell from 0.

  Args:
    cost: Finite values. Array of shape ``[n, K]``; with ``axis_name`` the rows of this shard.
    epsilon: Regularisation above 0, in the units of the cost.
    row_marginals: Mass of each row, 0 for a padded one. Array of shape ``[n]``; 1 / n by default.
    column_marginals: Mass of each column, the same on all shards and with the same sum as the rows.
      Array of shape ``[K]``; 1 / K by default.
    max_iterations: Most updates to make, 0 or more. Static or traced.
    tolerance: Stop once no column is off by more than this share of its mass, 0 or more. None makes
      exactly ``max_iterations`` updates and reports no convergence.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    A `SinkhornOutput`; its error belongs to the potentials returned. It has no gradient in reverse
    mode, because the number of updates is not known.

  Raises:
    InputError: If shapes disagree or, where values are known, one is out of its range.

  References:
    Cuturi, Sinkhorn Distances, NeurIPS 2013, algorithm 1. Schmitzer, Stabilized Sparse Scaling
    Algorithms for Entropy Regularized Transport Problems, SISC 2019, section 3.1 (absorption).
  """
  cost = jnp.asarray(cost)
  errors.require(
    cost.ndim == 2 and min(cost.shape) > 0,
    f"sinkhorn: cost has shape {cost.shape}, expected [n, K] with at least one row and column.",
  )
  errors.require_finite("sinkhorn: cost", cost)
  errors.require_number("sinkhorn: epsilon", epsilon, float(np.finfo(np.float32).tiny))
  if not errors.is_traced(max_iterations):
    max_iterations = errors.whole_number("sinkhorn: max_iterations", max_iterations)
    errors.require(
      max_iterations >= 0, f"sinkhorn: max_iterations is {max_iterations}, expected at least 0."
    )
  if tolerance is not None:
    errors.require_number("sinkhorn: tolerance", tolerance, 0)
  dtype = jnp.promote_types(cost.dtype, jnp.float32)
  cost = cost.astype(dtype)
  rows = _marginal("row_marginals", row_marginals, cost.shape[0], axis_name, dtype)
  columns = _marginal("column_marginals", column_marginals, cost.shape[1], None, dtype)
  if not errors.is_traced(rows, columns) and axis_name is None:
    totals = float(np.asarray(rows).sum()), float(np.asarray(columns).sum())
    errors.require(
      abs(totals[0] - totals[1]) <= 1e-3 * max(totals) and min(totals) > 0,
      f"sinkhorn: the rows' masses sum to {totals[0]:g} and the columns' to {totals[1]:g}; "
      "the sums have to be equal and above 0.",
    )
  limit = -1.0 if tolerance is None else tolerance
  return _solve(
    cost, rows, columns, jnp.asarray(epsilon, dtype), max_iterations, limit, axis_name=axis_name
  )
