"""The training loop that every learned stage shares."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from udh_jax.data.loader import ShuffledBatches, read_batches
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work

# (trained parameters, constants, batch, key) -> (loss, metrics). A batch holds index [b],
# image [b, h, w, 3] (or features [b, d]), text [b, t] where there are texts, weight [b], which is 0
# where the batch was filled up, and the number of the step.
Loss = Callable[[Any, Any, dict[str, jax.Array], jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def make_optimizer(settings: ConfigDict) -> optax.GradientTransformation:
  """AdamW under a linear warm-up and a cosine to zero, gradients clipped by global norm.

  Args:
    settings: ``head_learning_rate`` of the classifier (``head``), ``learning_rate`` of all else,
      ``weight_decay`` (of matrices and filters alone), ``steps``.
  """
  warmup = max(1, settings.steps // 20)

  def adamw(peak):
    schedule = optax.warmup_cosine_decay_schedule(
      0.0, peak, warmup, max(settings.steps, warmup + 1)
    )
    matrices = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.adamw(schedule, weight_decay=settings.weight_decay, mask=matrices)

  def parts(parameters):
    return {name: "head" if name == "head" else "body" for name in parameters}

  rates = {"body": adamw(settings.learning_rate), "head": adamw(settings.head_learning_rate)}
  return optax.chain(optax.clip_by_global_norm(1.0), optax.partition(rates, parts))


def train(
  context: Context,
  loss: Loss,
  parameters: Any,
  constants: Any,
  *,
  rows: np.ndarray,
  settings: ConfigDict,
  seed: int,
  finish: Callable[[Any], dict[str, Any]],
  optimizer: optax.GradientTransformation | None = None,
  num_steps: int | None = None,
) -> Work:
  """Work that minimises ``loss`` over random batches of images.

  A batch is filled up with weight 0 to a multiple of the devices, so that the same images make
  the same step on any number of them.

  Args:
    context: Devices and images.
    loss: A pure function, see `Loss`.
    parameters: Start values of what is trained, on all devices.
    constants: What else ``loss`` reads, on all devices.
    rows: The images to draw from. int array of shape ``[n]``.
    settings: ``batch_size``, and ``steps`` and those of `make_optimizer` unless the next two are
      given.
    seed: Decides the order of the images and the random key.
    finish: From the trained parameters to the stage's outputs.
    optimizer: None is `make_optimizer`.
    num_steps: None is ``settings.steps``.

  Returns:
    The work; its state holds parameters, optimiser, random key and step.
  """
  require(settings.batch_size >= 1, f"batch_size is {settings.batch_size}; it has to be 1 or more.")
  num_steps = settings.steps if num_steps is None else num_steps
  require(num_steps >= 1, f"steps is {num_steps}; it has to be 1 or more.")
  mesh, dataset = context.mesh, context.dataset
  optimizer = make_optimizer(settings) if optimizer is None else optimizer
  order = ShuffledBatches(rows, settings.batch_size, seed=seed)
  padded = mesh_lib.RowLayout(settings.batch_size, mesh.size).padded_rows
  filler = np.full(padded - settings.batch_size, -1)

  def initial_state(parameters):
    return {
      "parameters": jax.tree.map(jnp.copy, parameters),  # a step donates its state
      "optimizer": optimizer.init(parameters),
      "key": jax.random.key_data(jax.random.key(seed)),
      "step": jnp.int32(0),
    }

  @functools.partial(jax.jit, donate_argnums=0, out_shardings=mesh_lib.replicated(mesh))
  def step(state, constants, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
    batch["weight"] = (batch["index"] >= 0).astype(jnp.float32)
    batch["step"] = state["step"]
    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(
      state["parameters"], constants, batch, key
    )
    updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["parameters"])
    state = {
      "parameters": optax.apply_updates(state["parameters"], updates),
      "optimizer": optimizer_state,
      "key": state["key"],
      "step": state["step"] + 1,
    }
    return state, {"loss": value, **metrics}

  class LocalRows:
    """What this process reads of each batch."""

    def __len__(self):
      return num_steps

    def __getitem__(self, i):
      return mesh_lib.local_rows(mesh, np.concatenate([order[i], filler]))

  def batches(first: int) -> Iterator[dict[str, jax.Array]]:
    read = read_batches(dataset, LocalRows(), start=first)
    try:
      for batch in read:
        yield {name: mesh_lib.shard_local(mesh, value) for name, value in batch.items()}
    finally:
      read.close()

  return Work(
    state=jax.jit(initial_state, out_shardings=mesh_lib.replicated(mesh))(parameters),
    step=lambda state, batch: step(state, constants, batch),
    num_steps=num_steps,
    batches=batches,
    finish=lambda state: finish(state["parameters"]),
    images_per_step=settings.batch_size,
  )


def train_network(
  context: Context, loss: Loss, network: Any, constants: Any, **options: Any
) -> Work:
  """Work that trains the parameters of a network on the training images.

  Args:
    context: Devices and images.
    loss: See `Loss`; what of the network's variables is not trained is in ``constants["fixed"]``.
    network: ``variables`` and ``about``, see `udh_jax.stages.network`.
    constants: What else ``loss`` reads, on all devices.
    **options: ``settings``, ``seed``, and others of `train`.

  Returns:
    The work; its outputs are the trained network.
  """
  fixed = {kind: tree for kind, tree in network["variables"].items() if kind != "params"}
  return train(
    context,
    loss,
    network["variables"]["params"],
    {"fixed": fixed, **constants},
    rows=context.dataset.splits.train,
    finish=lambda parameters: {
      "variables": {"params": parameters, **fixed},
      "about": network["about"],
    },
    **options,
  )
