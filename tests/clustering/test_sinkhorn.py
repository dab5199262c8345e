"""Sinkhorn against ott-jax, against its marginals, and where float32 gets tight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

from udh_jax.clustering.sinkhorn import SinkhornOutput, sinkhorn
from udh_jax.errors import InputError


def ott_plan(cost, epsilon, rows=None, columns=None):
  problem = linear_problem.LinearProblem(
    geometry.Geometry(cost_matrix=jnp.asarray(cost), epsilon=epsilon), a=rows, b=columns
  )
  return ott_sinkhorn.Sinkhorn(threshold=1e-6, max_iterations=20000)(problem).matrix


def plan_of(cost, out, epsilon):
  score = out.row_potential[:, None] - cost + out.column_potential
  return np.asarray(jnp.exp(score / epsilon))


@pytest.mark.parametrize("shape", [(101, 7), (5, 1), (1, 5), (3, 11), (1, 1)])
def test_plan_equals_ott(rng, shape):
  cost = rng.random(shape, np.float32)
  out = sinkhorn(cost, epsilon=0.1, tolerance=1e-5)
  assert out.converged
  np.testing.assert_allclose(plan_of(cost, out, 0.1), ott_plan(cost, 0.1), atol=2e-6)


def test_plan_equals_ott_with_given_marginals(rng):
  cost = rng.random((40, 6), np.float32)
  rows = rng.dirichlet(np.ones(40)).astype(np.float32)
  columns = rng.dirichlet(np.ones(6)).astype(np.float32)
  out = sinkhorn(cost, epsilon=0.05, row_marginals=rows, column_marginals=columns, tolerance=1e-5)
  np.testing.assert_allclose(
    plan_of(cost, out, 0.05), ott_plan(cost, 0.05, rows, columns), atol=5e-6
  )


@pytest.mark.parametrize("epsilon", [0.003, 0.1, 30.0])
def test_fixed_iterations_equal_a_plain_loop_in_the_log_domain(rng, epsilon):
  cost = rng.random((60, 9)).astype(np.float32)
  out = sinkhorn(cost, epsilon=epsilon, max_iterations=12, tolerance=None)
  f, g, c = np.zeros(60), np.zeros(9), cost.astype(float)
  for _ in range(12):
    f = -epsilon * (np.log(60) + np.logaddexp.reduce((g - c) / epsilon, axis=1))
    g = -epsilon * (np.log(9) + np.logaddexp.reduce((f[:, None] - c) / epsilon, axis=0))
  f = -epsilon * (np.log(60) + np.logaddexp.reduce((g - c) / epsilon, axis=1))
  assert out.iterations == 12 and not out.converged
  np.testing.assert_allclose(out.column_potential, g, atol=1e-5 + 1e-5 * epsilon)
  np.testing.assert_allclose(out.row_potential, f, atol=1e-5 + 1e-5 * epsilon)
  mass = np.exp((f[:, None] + g - c) / epsilon).sum(axis=0)
  np.testing.assert_allclose(out.error, np.abs(mass * 9 - 1).max(), rtol=1e-2, atol=1e-5)


def test_a_step_beyond_the_range_of_float32_is_made_in_the_log_domain():
  # The second column is 300 epsilon dearer for all rows: its scaling, exp(300), is no float32.
  cost = np.array([[0.0, 300.0], [1.0, 300.5], [0.5, 301.0]], np.float32)
  out = sinkhorn(cost, epsilon=1.0, tolerance=1e-5)
  assert out.converged
  plan = plan_of(cost, out, 1.0)
  np.testing.assert_allclose(plan.sum(axis=0), 1 / 2, rtol=1e-4)
  np.testing.assert_allclose(plan, ott_plan(cost, 1.0), atol=1e-4)


def test_marginals_hold_and_the_error_is_theirs(rng):
  cost = rng.random((200, 12), np.float32)
  for iterations in (0, 1, 3, 50):
    out = sinkhorn(cost, epsilon=0.02, max_iterations=iterations, tolerance=None)
    plan = plan_of(cost, out, 0.02)
    np.testing.assert_allclose(plan.sum(axis=1), 1 / 200, rtol=1e-4)
    np.testing.assert_allclose(
      np.abs(plan.sum(axis=0) * 12 - 1).max(), out.error, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e6, 1e30])
@pytest.mark.parametrize("epsilon", [1e-30, 1e-6, 1e8])
def test_no_nan_for_any_epsilon_and_scale(rng, scale, epsilon):
  cost = (rng.random((30, 4)) * scale).astype(np.float32)
  out = sinkhorn(cost, epsilon=epsilon, max_iterations=20)
  assert not any(np.isnan(np.asarray(leaf)).any() for leaf in out)


def test_rows_and_columns_without_mass_are_left_alone(rng):
  cost = rng.random((20, 5), np.float32)
  padded = np.concatenate([cost, np.full((3, 5), 7.0, np.float32)])
  padded = np.concatenate([padded, np.zeros((23, 1), np.float32)], axis=1)
  rows = np.r_[np.full(20, 1 / 20), np.zeros(3)].astype(np.float32)
  columns = np.r_[np.full(5, 1 / 5), 0].astype(np.float32)
  plain = sinkhorn(cost, epsilon=0.05)
  out = sinkhorn(padded, epsilon=0.05, row_marginals=rows, column_marginals=columns)
  assert np.isneginf(out.row_potential[20:]).all() and np.isneginf(out.column_potential[5])
  np.testing.assert_allclose(out.row_potential[:20], plain.row_potential, atol=1e-5)
  np.testing.assert_allclose(out.column_potential[:5], plain.column_potential, atol=1e-5)
  plan = plan_of(padded, out, 0.05)
  assert (plan[20:] == 0).all() and (plan[:, 5] == 0).all()


def test_jit_shard_map_and_pmap_agree(rng, mesh):
  cost = rng.random((61, 5)).astype(np.float32)
  single = sinkhorn(cost, epsilon=0.02)
  padded = np.concatenate([cost, np.zeros((3, 5), np.float32)])
  rows = np.r_[np.full(61, 1 / 61), np.zeros(3)].astype(np.float32)

  def solve(cost, rows):
    return sinkhorn(cost, epsilon=0.02, row_marginals=rows, axis_name="data")

  data, same = PartitionSpec("data"), PartitionSpec()
  sharded = jax.jit(
    jax.shard_map(
      solve,
      mesh=mesh,
      in_specs=(data, data),
      out_specs=SinkhornOutput(data, same, same, same, same),
    )
  )(padded, rows)
  mapped = jax.pmap(solve, axis_name="data")(padded.reshape(8, 8, 5), rows.reshape(8, 8))
  jitted = jax.jit(lambda cost: sinkhorn(cost, epsilon=0.02))(cost)
  np.testing.assert_allclose(jitted.column_potential, single.column_potential, atol=1e-6)
  np.testing.assert_allclose(sharded.column_potential, single.column_potential, atol=1e-6)
  np.testing.assert_allclose(sharded.row_potential[:61], single.row_potential, atol=1e-6)
  np.testing.assert_allclose(mapped.column_potential[3], single.column_potential, atol=1e-6)
  np.testing.assert_allclose(np.ravel(mapped.row_potential)[:61], single.row_potential, atol=1e-6)
  assert sharded.iterations == single.iterations


def test_uniform_marginals_count_the_rows_of_all_shards(rng, mesh):
  cost = rng.random((64, 3)).astype(np.float32)
  sharded = jax.shard_map(
    lambda cost: sinkhorn(cost, epsilon=0.1, axis_name="data").row_potential,
    mesh=mesh,
    in_specs=PartitionSpec("data"),
    out_specs=PartitionSpec("data"),
  )(cost)
  np.testing.assert_allclose(sharded, sinkhorn(cost, epsilon=0.1).row_potential, atol=1e-6)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"cost": np.zeros(3)}, r"shape \(3,\)"),
    ({"cost": np.zeros((0, 3))}, r"shape \(0, 3\)"),
    ({"cost": np.array([[0.0, np.nan], [0.0, 1.0]])}, "1 of 2 rows"),
    ({"epsilon": 0.0}, "epsilon is 0.0"),
    ({"max_iterations": -3}, "max_iterations is -3, expected at least 0"),
    ({"max_iterations": 1.5}, "max_iterations is 1.5, expected a whole number"),
    ({"row_marginals": np.ones(3)}, r"row_marginals has shape \(3,\)"),
    ({"column_marginals": np.array([1.5, -0.5])}, "negative"),
    ({"column_marginals": np.array([1.0, 1.0])}, "sum to 1 and the columns' to 2"),
  ],
)
def test_bad_input_is_one_clear_line(arguments, words):
  arguments = {"cost": np.zeros((4, 2)), "epsilon": 0.1, **arguments}
  with pytest.raises(InputError, match=words) as caught:
    sinkhorn(**arguments)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"tolerance": np.nan}, "tolerance is nan, expected a finite number of 0 or more"),
    ({"tolerance": np.inf}, "tolerance is inf"),
    ({"tolerance": -1.0}, r"tolerance is -1\.0"),
    ({"epsilon": 1e-60}, "epsilon is 1e-60"),
    ({"epsilon": np.inf}, "epsilon is inf"),
  ],
)
def test_options_that_mean_nothing_are_refused(options, words):
  with pytest.raises(InputError, match=words):
    sinkhorn(np.eye(3, dtype=np.float32), **{"epsilon": 0.1, **options})
