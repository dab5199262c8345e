"""The optimiser's rates, and batches that are read in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from udh_jax.losses.contrastive import nt_xent
from udh_jax.stages.training import in_chunks, make_optimizer


def test_what_starts_at_random_has_a_learning_rate_of_its_own():
  settings = ConfigDict(
    {"steps": 100, "learning_rate": 1e-3, "head_learning_rate": 1e-1, "weight_decay": 0.0}
  )
  parameters = {"backbone": jnp.ones((2, 2)), "hash": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
  optimizer = make_optimizer(settings, frozenset({"hash", "head"}))
  state = optimizer.init(parameters)
  for _ in range(5):  # the warm-up is over
    updates, state = optimizer.update(parameters, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  moved = {name: float(1 - value[0, 0]) for name, value in parameters.items()}
  np.testing.assert_allclose(moved["head"] / moved["backbone"], 100, rtol=0.01)
  np.testing.assert_allclose(moved["hash"], moved["head"], rtol=1e-6)


def layers(weights, rows):
  hidden = rows["image"] / 255.0
  for weight in weights:
    hidden = jnp.tanh(hidden @ weight)
  return hidden + rows["index"][:, None]


def contrast(weights, rows, chunk_size):
  read = in_chunks(lambda some: layers(weights, some), chunk_size)
  outputs = read(rows)
  return nt_xent(outputs, outputs[::-1], temperature=0.3), outputs


@pytest.mark.parametrize("chunk_size", [1, 5, 8, 23, 24, 100])
def test_chunks_have_the_outputs_and_gradients_of_the_whole_batch(rng, chunk_size):
  weights = [jnp.asarray(rng.normal(size=(6, 6)), jnp.float32) for _ in range(2)]
  rows = {
    "image": rng.integers(0, 256, (24, 6), dtype=np.uint8),
    "index": np.arange(24, dtype=np.int32),
  }
  gradient = jax.jit(jax.value_and_grad(contrast, has_aux=True), static_argnums=2)
  (value, outputs), expected = gradient(weights, rows, 0)
  (found, same), gradients = gradient(weights, rows, chunk_size)
  np.testing.assert_allclose(same, outputs, rtol=1e-5)
  np.testing.assert_allclose(found, value, rtol=1e-5)
  for one, other in zip(gradients, expected, strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_chunks_need_less_memory_and_stay_on_their_devices(mesh, rng):
  weights = [jnp.asarray(rng.normal(size=(64, 64)), jnp.float32)] * 8
  split, whole = (NamedSharding(mesh, PartitionSpec(axis)) for axis in ("data", None))
  rows = {
    "image": jax.device_put(np.ones((16384, 64), np.uint8), split),
    "index": jax.device_put(np.arange(16384, dtype=np.int32), split),
  }

  def loss(weights, rows, chunk_size):
    read = in_chunks(lambda some: layers(weights, some), chunk_size)
    return (read(rows) ** 2).mean()  # nothing else needs all rows at once

  def compiled(chunk_size):
    gradient = jax.jit(jax.grad(loss), static_argnums=2, out_shardings=whole)
    return gradient.lower(weights, rows, chunk_size).compile()

  at_once, in_parts = compiled(0), compiled(1024)
  sizes = [f.memory_analysis().temp_size_in_bytes for f in (at_once, in_parts)]
  assert sizes[1] < sizes[0] / 2, sizes
  assert "all-gather" not in in_parts.as_text()
