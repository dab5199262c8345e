"""Pairs in, an image and a text network out that tell pairs apart by a memory of codes: UCCH."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from udh_jax.coding.binary import sign
from udh_jax.losses.ucch import memory_contrast, ranking_loss, remembered
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.cosine import unit_rows
from udh_jax.stages.pair_network import (
  features_read,
  new_pair_network,
  pair_optimizer,
  reads_features,
  training_outputs,
)
from udh_jax.stages.training import batches_of, descend, initial_state


def written_places(rows: jax.Array, nowhere: int) -> jax.Array:
  """Where the rows of a batch are written, each once: of copies, the last one's values are kept.

  XLA writes copies in no fixed order.

  Args:
    rows: -1 for padding. Integer array of shape ``[b]``.
    nowhere: What stands for padding and for all copies but the last, which are not written.

  Returns:
    Integer array of shape ``[b]``.
  """
  again = jnp.triu(rows[:, None] == rows, k=1).any(axis=1)
  return jnp.where((rows < 0) | again, nowhere, rows)


def ucch(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains both networks by contrast with a memory of every pair's code, and by ranking.

  L = a [contrast of u + contrast of v] + (1 - a) ranking, where u and v are tanh(h) of images and
  texts, scaled to unit length. The memory's signs are the codes that both are contrasted with; it
  follows u + v by a momentum. In the first epoch the batch's own sign(u + v) stand for it.

  Inputs: none where images are features; else ``backbone``, a network, and its ``features``.

  Outputs: a network whose ``variables`` are those of `PairNetwork`.

  References:
    Hu et al., UCCH, IEEE TPAMI 2023, and the authors' code: both losses, the memory, its momentum,
    temperature, Adam, gradients clipped at norm 1. Our own: `PairNetwork` (they have up to three
    layers of 8,192), one draw of other codes for all of a batch, and not one for each row.
  """
  settings, mesh = config.ucch, context.mesh
  train = context.dataset.splits.train
  network = new_pair_network(context, config, settings, inputs, bits=config.bits)
  network = network._replace(trained=settings.trained)
  forward = training_outputs(network, settings)
  num_steps = -(-settings.epochs * len(train) // settings.batch_size)
  first_steps = -(-len(train) // settings.batch_size)  # those that begin in the first epoch
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), pair_optimizer(settings, num_steps))
  by_rows, whole = mesh_lib.row_sharding(mesh), mesh_lib.replicated(mesh)
  layout = mesh_lib.RowLayout(len(context.dataset.images), mesh.size)
  constants = {
    "fixed": network.fixed,
    "frozen": features_read(network.stored, inputs),
    "train": mesh_lib.replicate(mesh, train.astype(np.int32)),
  }

  def loss(parameters, constants, batch, key):
    network_key, draw_key = jax.random.split(key)
    images, texts = (
      unit_rows(jnp.tanh(h)) for h in forward(parameters, constants, batch, network_key)
    )
    rows, weights = batch["index"], batch["weight"]
    drawn = jax.random.randint(draw_key, (settings.negatives,), 0, len(train))
    memory = constants["memory"]
    first_epoch = batch["step"] < first_steps
    shown = lax.stop_gradient(sign(images + texts))

    def by_memory():
      codes = sign(memory[rows]), sign(memory[constants["train"][drawn]])
      return tuple(
        memory_contrast(u, *codes, temperature=settings.temperature, weights=weights)
        for u in (images, texts)
      )

    def by_batch():
      left_out = (rows[:, None] == rows) | (weights == 0)
      return tuple(
        memory_contrast(
          u, shown, shown, temperature=settings.temperature, weights=weights, left_out=left_out
        )
        for u in (images, texts)
      )

    contrast = sum(lax.cond(first_epoch, by_batch, by_memory))
    ranking = ranking_loss(
      images, texts, margin=settings.margin, shift=settings.shift, weights=weights, rows=rows
    )
    momentum = jnp.where(first_epoch, 0.0, settings.memory_momentum)
    kept = remembered(memory[rows], images, texts, momentum=momentum)
    value = settings.contrast_share * contrast + (1 - settings.contrast_share) * ranking
    return value, {"contrast": contrast, "ranking": ranking, "kept": lax.stop_gradient(kept)}

  descent = descend(loss, optimizer)

  def step(state, constants, batch):
    learned = {name: value for name, value in state.items() if name != "memory"}
    learned, metrics = descent(learned, constants | {"memory": state["memory"]}, batch)
    rows = written_places(batch["index"], layout.padded_rows)
    memory = state["memory"].at[rows].set(metrics.pop("kept"), mode="drop")
    memory = lax.with_sharding_constraint(memory, by_rows)
    return {**lax.with_sharding_constraint(learned, whole), "memory": memory}, metrics

  def memory_start(key):
    shape = (layout.padded_rows, config.bits)
    return jax.random.rademacher(key, shape, jnp.float32) / config.bits**0.5

  step = jax.jit(step, donate_argnums=0)
  begin = jax.jit(initial_state, static_argnums=(1, 2), out_shardings=whole)
  draw = jax.jit(memory_start, out_shardings=by_rows)

  def batches(first: int) -> Iterator[dict[str, jax.Array]]:
    return batches_of(
      context,
      batch_size=settings.batch_size,
      seed=config.seed,
      num_steps=num_steps,
      first=first,
      images=not reads_features(network.stored),
    )

  return Work(
    state={
      **begin(network.parameters, optimizer, config.seed),
      "memory": draw(jax.random.fold_in(jax.random.key(config.seed), num_steps)),
    },
    step=lambda state, batch: step(state, constants, batch),
    num_steps=num_steps,
    batches=batches,
    finish=lambda state: network.with_parameters(state["parameters"]),
    row_state=("memory",),
    images_per_step=settings.batch_size,
  )


# Version 2: another copy of a pair in a batch is none of its others, and one of them is remembered.
STAGE = Stage("ucch", ucch, ("ucch", "bits", "seed", "dtype"), version=2)
