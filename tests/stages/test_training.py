"""The optimiser's rates, and batches that are read in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from udh_jax.losses.contrastive import nt_xent
from udh_jax.stages.training import descend, in_chunks, initial_state, make_optimizer


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


def test_the_optimiser_clips_warms_up_ends_at_zero_and_lets_matrices_alone_decay(rng):
  steps, warmup, decay = 40, 2, 0.1
  rates = {"backbone": 1e-3, "hash": 1e-1}
  settings = ConfigDict(
    {"steps": steps, "learning_rate": 1e-3, "head_learning_rate": 1e-1, "weight_decay": decay}
  )
  optimizer = make_optimizer(settings, frozenset({"hash"}))
  shapes = {"kernel": (3, 2), "bias": (2,)}
  parameters = {
    part: {name: rng.normal(size=shape) for name, shape in shapes.items()} for part in rates
  }
  state = optimizer.init(parameters)
  update = jax.jit(optimizer.update)
  moments = {(part, name): [0.0, 0.0] for part in rates for name in shapes}
  for step in range(steps + 1):
    scale = 0.01 if step % 3 else 5.0  # beyond the norm that is clipped at times
    gradients = jax.tree.map(lambda leaf, s=scale: s * rng.normal(size=leaf.shape), parameters)
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
    updates, state = update(gradients, state, parameters)
    share = (1 + np.cos(np.pi * (step - warmup) / (steps - warmup))) / 2
    share = step / warmup if step < warmup else share
    for (part, name), moment in moments.items():
      gradient, value = gradients[part][name] / max(1, norm), parameters[part][name]
      moment[:] = (
        0.9 * moment[0] + 0.1 * gradient,
        0.999 * moment[1] + 0.001 * gradient**2,
      )
      first, second = moment[0] / (1 - 0.9 ** (step + 1)), moment[1] / (1 - 0.999 ** (step + 1))
      move = first / (np.sqrt(second) + 1e-8) + (decay * value if name == "kernel" else 0)
      np.testing.assert_allclose(
        updates[part][name], -rates[part] * share * move, rtol=2e-3, atol=1e-7
      )
    parameters = jax.tree.map(np.add, parameters, updates)
  assert all(abs(np.asarray(leaf)).max() < 1e-7 for leaf in jax.tree.leaves(updates))


def test_every_step_has_a_key_of_its_own_which_its_number_alone_decides():
  def loss(parameters, constants, batch, key):
    return parameters["a"].sum(), {"draw": jax.random.uniform(key), "rows": batch["weight"].sum()}

  optimizer = optax.sgd(0.1)
  step, batch = descend(loss, optimizer), {"index": jnp.array([4, -1, 0])}
  states = [initial_state({"a": jnp.ones(2)}, optimizer, 0)]
  draws = []
  for number in range(3):
    state, metrics = step(states[-1], {}, batch)
    states.append(state)
    draws.append(float(metrics["draw"]))
    assert int(state["step"]) == number + 1 and metrics["rows"] == 2
  assert len(set(draws)) == 3
  assert float(step(states[1], {}, batch)[1]["draw"]) == draws[1]
  other = initial_state({"a": jnp.ones(2)}, optimizer, 1)
  assert float(step(other, {}, batch)[1]["draw"]) != draws[0]
