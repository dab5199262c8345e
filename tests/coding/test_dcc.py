"""Discrete cyclic coordinate descent, against a plain loop and against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.coding import dcc
from udh_jax.cpu import choice
from udh_jax.errors import InputError


@pytest.fixture(autouse=True, params=["jax", "numba"])
def each_kernel(request):
  """Runs a test with the kernels of JAX and with those of numba."""
  if request.param == "numba":
    pytest.importorskip("numba")
  with choice.kernels(request.param):
    yield


def objective(codes, linear, gram):
  codes = np.asarray(codes, np.float64)
  return np.trace(codes @ gram @ codes.T) - 2 * np.trace(codes @ linear.T)


def plain_dcc(codes, linear, gram, num_sweeps):
  codes = np.array(codes, np.float64)
  for _ in range(num_sweeps):
    for k in range(codes.shape[1]):
      slope = linear[:, k] - codes @ gram[:, k] + gram[k, k] * codes[:, k]
      codes[:, k] = np.where(slope >= 0, 1, -1)
  return codes


def problem(rng, n, c, rows=7):
  # Small integers: float32 sums are exact, and slopes of exactly 0 do occur.
  codes = np.where(rng.normal(size=(n, c)) >= 0, 1, -1).astype(np.float32)
  factor = rng.integers(-2, 3, (rows, c)).astype(np.float32)
  linear = rng.integers(-9, 10, (n, c)).astype(np.float32)
  return codes, linear, factor.T @ factor


@pytest.mark.parametrize(("n", "c"), [(1, 1), (5, 3), (33, 8), (17, 13), (100, 64)])
@pytest.mark.parametrize("num_sweeps", [0, 1, 3])
def test_agrees_with_a_plain_cyclic_loop(rng, n, c, num_sweeps):
  codes, linear, gram = problem(rng, n, c)
  result = dcc(codes, linear, gram, num_sweeps=num_sweeps)
  np.testing.assert_array_equal(result, plain_dcc(codes, linear, gram, num_sweeps))


def test_the_loop_met_slopes_of_zero(rng):
  # Otherwise the comparison above would say nothing about sign(0).
  codes, linear, gram = problem(rng, 33, 8)
  slopes = linear - codes @ gram + np.diag(gram) * codes
  assert (slopes == 0).any()


def test_sign_of_zero_is_plus_one():
  result = dcc(-np.ones((2, 5)), np.zeros((2, 5)), np.eye(5), num_sweeps=1)
  np.testing.assert_array_equal(result, 1)


def test_no_bit_step_raises_the_objective(rng):
  n, c = 20, 6
  codes, linear, gram = problem(rng, n, c)
  linear, gram = linear + rng.normal(size=linear.shape), gram + 0.3 * np.eye(c)
  # One sweep over the bits in an order that starts with bit k moves bit k alone first: rotate the
  # bits, and let only the first be free by pinning the others with huge linear terms.
  before = objective(codes, linear, gram)
  for step in range(3 * c):
    pinned = 1e5 * codes
    pinned[:, step % c] = linear[:, step % c]
    codes = np.asarray(dcc(codes, pinned, gram, num_sweeps=1))
    after = objective(codes, linear, gram)
    assert after <= before + 1e-6 * abs(before)
    before = after


def test_sweeps_never_raise_the_objective_and_end_where_no_single_flip_helps(rng):
  codes, linear, gram = problem(rng, 40, 9)
  values = [objective(dcc(codes, linear, gram, num_sweeps=s), linear, gram) for s in range(12)]
  assert (np.diff(values) <= 0).all()
  assert values[0] > values[-1] == values[-2]
  end = np.asarray(dcc(codes, linear, gram, num_sweeps=12))
  for row, k in itertools.product(range(40), range(9)):
    flipped = end.copy()
    flipped[row, k] *= -1
    assert objective(flipped, linear, gram) >= values[-1]


def test_the_best_of_all_starts_is_the_brute_force_optimum(rng):
  c = 5
  every_code = np.array(list(itertools.product([-1.0, 1.0], repeat=c)))  # [32, c]
  _, linear, gram = problem(rng, 12, c)
  for row in linear:
    # All starts of one row are solved as 32 rows with the same linear term.
    ends = np.asarray(dcc(every_code, np.tile(row, (len(every_code), 1)), gram, num_sweeps=10))
    values = [objective(code[None], row[None], gram) for code in ends]
    best = min(objective(code[None], row[None], gram) for code in every_code)
    assert min(values) == best


def test_a_diagonal_gram_is_solved_exactly_in_one_sweep(rng):
  codes, linear, _ = problem(rng, 30, 7)
  result = dcc(codes, linear, np.diag(rng.uniform(0, 9, 7)), num_sweeps=1)
  np.testing.assert_array_equal(result, np.where(linear >= 0, 1, -1))


def test_adsh_instance_lowers_the_adsh_loss(rng):
  n, m, c, gamma = 60, 15, 8, 200.0
  rows = rng.choice(n, m, replace=False)
  outputs = np.tanh(rng.normal(size=(m, c)))
  labels = rng.integers(0, 3, n)
  similarity = np.where(labels[rows][:, None] == labels[None, :], 1.0, -1.0)  # [m, n]
  codes = np.where(rng.normal(size=(n, c)) >= 0, 1.0, -1.0)
  scattered = np.zeros((n, c))
  scattered[rows] = outputs

  def loss(codes):
    fit = np.sum((outputs @ codes.T - c * similarity) ** 2)
    return fit + gamma * np.sum((codes[rows] - outputs) ** 2)

  linear = c * similarity.T @ outputs + gamma * scattered
  gram = outputs.T @ outputs
  losses = [loss(np.asarray(dcc(codes, linear, gram, num_sweeps=s), float)) for s in range(4)]
  assert losses[0] > losses[1] >= losses[2] >= losses[3]
  # The quadratic form is the loss up to a constant, so brute force over one row must agree.
  end = np.asarray(dcc(codes, linear, gram, num_sweeps=20), float)
  gap = loss(end) - loss(codes)
  assert gap == pytest.approx(objective(end, linear, gram) - objective(codes, linear, gram))


def test_sdh_instance_lowers_the_sdh_loss_in_every_alternation(rng):
  n, c, num_classes, nu, ridge = 80, 10, 4, 1e-5, 1.0
  targets = np.eye(num_classes)[rng.integers(0, num_classes, n)]  # Y
  outputs = rng.normal(size=(n, c))  # F
  codes = np.where(rng.normal(size=(n, c)) >= 0, 1.0, -1.0)

  def loss(codes, weights):
    fit = np.sum((targets - codes @ weights) ** 2) + ridge * np.sum(weights**2)
    return fit + nu * np.sum((codes - outputs) ** 2)

  losses = []
  for _ in range(5):
    weights = np.linalg.solve(codes.T @ codes + ridge * np.eye(c), codes.T @ targets)  # W [c, K]
    losses.append(loss(codes, weights))
    linear, gram = targets @ weights.T + nu * outputs, weights @ weights.T
    codes = np.asarray(dcc(codes, linear, gram, num_sweeps=3), float)
    losses.append(loss(codes, weights))
  assert (np.diff(losses) <= 1e-4).all()  # float32 inside
  assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32, np.float16])
def test_keeps_the_dtype_of_the_codes(rng, dtype):
  codes, linear, gram = problem(rng, 9, 6)
  result = dcc(codes.astype(dtype), linear, gram, num_sweeps=2)
  assert result.dtype == dtype
  np.testing.assert_array_equal(result, plain_dcc(codes, linear, gram, 2))


def test_rows_on_eight_devices_give_the_same_codes(rng, mesh):
  codes, linear, gram = problem(rng, 8 * 5, 11)
  expected = dcc(codes, linear, gram, num_sweeps=2)

  def solve(codes, linear, gram):
    return dcc(codes, linear, gram, num_sweeps=2)

  sharded = jax.shard_map(
    solve, mesh=mesh, in_specs=(P("data"), P("data"), P()), out_specs=P("data")
  )
  np.testing.assert_array_equal(jax.jit(sharded)(codes, linear, gram), expected)
  mapped = jax.pmap(solve, in_axes=(0, 0, None))(
    codes.reshape(8, 5, 11), linear.reshape(8, 5, 11), gram
  )
  np.testing.assert_array_equal(mapped.reshape(40, 11), expected)
  np.testing.assert_array_equal(jax.jit(solve)(codes, linear, gram), expected)


def test_no_rows_give_no_rows():
  assert dcc(jnp.ones((0, 4)), jnp.ones((0, 4)), jnp.eye(4), num_sweeps=1).shape == (0, 4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"linear": np.zeros((3, 5))}, r"\(3, 4\) and linear \(3, 5\)"),
    ({"gram": np.eye(5)}, r"gram has shape \(5, 5\)"),
    ({"gram": np.triu(np.ones((4, 4)))}, "not symmetric"),
    ({"codes": np.zeros((3, 4))}, "neither -1 nor"),
    ({"linear": np.full((3, 4), np.nan)}, "3 of 3 rows"),
    ({"linear": np.where(np.arange(4) == 3, np.inf, np.zeros((3, 4)))}, "3 of 3 rows"),
    ({"gram": np.full((4, 4), np.nan)}, "dcc: gram: 4 of 4 rows"),
    ({"codes": np.ones((3, 4), np.int8) * 2}, "neither -1 nor"),
    ({"codes": np.ones((3, 4), np.uint8)}, "codes are uint8, which has no -1"),
    ({"codes": np.ones((3, 4), bool)}, "codes are bool, which has no -1"),
    ({"num_sweeps": -1}, "num_sweeps is -1"),
    ({"num_sweeps": 0.5}, "num_sweeps is 0.5, expected a whole number"),
  ],
)
def test_bad_input_is_refused_in_one_line(change, message):
  given = {
    "codes": np.ones((3, 4)),
    "linear": np.zeros((3, 4)),
    "gram": np.eye(4),
    "num_sweeps": 1,
  } | change
  with pytest.raises(InputError, match=message) as error:
    dcc(**given)
  assert "\n" not in str(error.value)
