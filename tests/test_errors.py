"""Checks at the boundary: what passes, and the line that refuses the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import (
  InputError,
  is_traced,
  require,
  require_finite,
  require_key,
  whole_number,
)


def test_a_message_may_be_made_where_it_is_needed():
  require(True, lambda: pytest.fail("made for nothing"))
  with pytest.raises(InputError, match=r"^given$"):
    require([], lambda: "given")
  with pytest.raises(InputError, match=r"^text$"):
    require(0, "text")


@pytest.mark.parametrize("value", [3, np.int8(3), np.uint64(3), 3.0, np.float32(3)])
def test_whole_numbers_of_any_type_become_integers(value):
  assert whole_number("k", value) == 3
  assert type(whole_number("k", value)) is int


@pytest.mark.parametrize("value", [2.5, True, np.True_, "3", None, float("nan"), float("inf")])
def test_what_is_not_a_whole_number_is_refused(value):
  with pytest.raises(InputError, match=r"^k is .*, expected a whole number\.$"):
    whole_number("k", value)


@pytest.mark.parametrize("implementation", ["threefry2x32", "rbg"])
def test_one_random_key_of_either_form_passes(implementation):
  typed = jax.random.key(3, impl=implementation)
  raw = jax.random.key_data(typed)
  for key in (typed, raw, np.asarray(raw)):
    require_key("f", key)
  jax.jit(lambda key: require_key("f", key))(typed)
  jax.vmap(lambda key: require_key("f", key) or 0)(jax.random.split(typed, 2))


@pytest.mark.parametrize(
  "key", [0, np.int64(3), None, "seed", np.zeros(2, np.int32), jax.random.split(jax.random.key(0))]
)
def test_what_is_no_random_key_is_refused(key):
  with pytest.raises(InputError, match=r"^f: key is .+, expected one random key; give .*$"):
    require_key("f", key)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_rows_that_are_not_finite_are_counted(kind):
  rows = np.ones((4, 2), np.float32)
  require_finite("x", kind(rows))
  require_finite("x", kind(rows[:0]))
  rows[1, 0], rows[3] = np.inf, np.nan
  with pytest.raises(InputError, match=r"^x: 2 of 4 rows hold NaN or infinity .* row 1\)"):
    require_finite("x", kind(rows))


def test_values_are_unknown_under_a_trace():
  seen = []

  @jax.jit
  def function(x):
    require_finite("x", x)
    seen.append(is_traced(np.ones(2), x))
    return x

  function(jnp.full(2, jnp.nan))
  assert seen == [True]
  assert not is_traced(np.ones(2), jnp.ones(2), 3)
