"""The training loop that every learned stage shares."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from ml_collections import ConfigDict

from udh_jax.data.augmentation import augment
from udh_jax.data.loader import ShuffledBatches, read_batches
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Work
from udh_jax.stages.features import as_the_backbone_made_them
from udh_jax.stages.network import NewNetwork, preprocess, variables_of

Batch = dict[str, jax.Array]
# (trained parameters, constants, batch, key) -> (loss, metrics). A batch holds index [b],
# image [b, h, w, 3] (or features [b, d]), text [b, t] where there are texts, weight [b], which is 0
# where the batch was filled up, and the number of the step.
Loss = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def make_optimizer(
  settings: ConfigDict, fresh: frozenset[str] = frozenset()
) -> optax.GradientTransformation:
  """AdamW under a linear warm-up and a cosine to zero, gradients clipped by global norm.

  Args:
    settings: ``head_learning_rate`` of the parts that start at random, ``learning_rate`` of those
      that start at values of use, ``weight_decay`` (of matrices and filters alone), ``steps``.
    fresh: Names of the top-level parts that start at random, see `NewNetwork`.
  """
  warmup = max(1, settings.steps // 20)

  def adamw(peak):
    schedule = optax.warmup_cosine_decay_schedule(
      0.0, peak, warmup, max(settings.steps, warmup + 1)
    )
    matrices = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    return optax.adamw(schedule, weight_decay=settings.weight_decay, mask=matrices)

  def parts(parameters):
    return {name: "fresh" if name in fresh else "given" for name in parameters}

  rates = {"given": adamw(settings.learning_rate), "fresh": adamw(settings.head_learning_rate)}
  return optax.chain(optax.clip_by_global_norm(1.0), optax.partition(rates, parts))


def augmented_views(
  network: Mapping[str, Any], settings: ConfigDict, size: int
) -> Callable[[Batch, jax.Array], jax.Array]:
  """The function from a batch and a key to random views of its pictures, as the network takes them.

  Args:
    network: Its mean and deviation of pixels are read.
    settings: ``augment`` has the options of `udh_jax.data.augmentation.augment`.
    size: Side of the views.
  """
  prepare = preprocess(network)
  return lambda batch, key: prepare(
    augment(key, batch["image"], batch["index"], size=size, **settings.augment)
  )


def forward_on_views(
  network: NewNetwork, settings: ConfigDict, size: int
) -> Callable[[Any, Any, Batch, jax.Array], Any]:
  """The function from a loss's arguments to the network's outputs for random views.

  Where the constants have `made_views` or `whole_pictures`, the backbone, which is not trained, is
  not read again.

  Args:
    network: To be trained.
    settings: See `augmented_views`; ``chunk_size``, where there is such a field, is that of
      `in_chunks`.
    size: Side of the views.

  Returns:
    ``(parameters, constants, batch, key, other=False) -> outputs`` of the network's module;
    ``other`` takes another view of each picture than the same key does without it.
  """
  views = augmented_views(network.stored, settings, size)

  def forward(parameters, constants, batch, key, *, other=False):
    variables = variables_of(parameters, constants["fixed"])
    apply_to = functools.partial(network.module.apply, variables)
    if "views" in constants:
      made = random_view(constants["views"], batch["index"], key, other=other)
      return apply_to(made, from_features=True)
    if "whole" in constants:
      features = as_the_backbone_made_them(constants["whole"], batch["index"])
      return apply_to(features, from_features=True)
    key = jax.random.fold_in(key, 1) if other else key
    read = in_chunks(lambda rows: apply_to(views(rows, key)), settings.get("chunk_size", 0))
    return read({name: batch[name] for name in ("image", "index")})

  return forward


def in_chunks(function: Callable[[Any], Any], chunk_size: int) -> Callable[[Any], Any]:
  """The same function of rows, which holds what a gradient needs of so many rows at a time.

  A chunk is computed once for its outputs and once more on the way back. Outputs and gradients are
  those of all rows at once, also where a loss reads all outputs together.

  Args:
    function: Of arrays ``[b, ...]`` to arrays ``[b, ...]``, each row on its own.
    chunk_size: Rows of a chunk; 0, or no fewer than there are, takes all at once.

  References:
    Gao et al., Scaling deep contrastive learning batch size under memory limited setup (GradCache),
    RepL4NLP 2021. That it is rematerialisation within a loop is our own wording of it.
  """

  def chunked(rows):
    size = len(jax.tree.leaves(rows)[0])
    if not 0 < chunk_size < size:
      return function(rows)
    number = -(-size // chunk_size)
    padding = -size % number

    def split(x):
      # Every chunk takes rows from the whole batch, so that each device goes on with its own.
      x = jnp.pad(x, [(0, padding), *[(0, 0)] * (x.ndim - 1)])
      return x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1)

    def joined(x):
      return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:size]

    chunks = jax.tree.map(split, rows)
    return jax.tree.map(joined, lax.map(jax.checkpoint(function, prevent_cse=False), chunks))

  return chunked


def random_view(
  views: jax.Array, rows: jax.Array, key: jax.Array, *, other: bool = False
) -> jax.Array:
  """Features of a view of each row, of those that may be trained on; float32 ``[b, d]``.

  Args:
    views: Output of `udh_jax.stages.views`, whose last view is kept apart.
    rows: int array of shape ``[b]``.
    key: Random key.
    other: Any view but the one that the same key draws without it; there have to be two.
  """
  number = views.shape[1] - 1
  chosen = jax.random.randint(key, rows.shape, 0, number)
  if other:
    chosen += jax.random.randint(jax.random.fold_in(key, 1), rows.shape, 1, number)
    chosen %= number
  return views[rows, chosen].astype(jnp.float32)


def made_views(inputs: Inputs) -> dict[str, jax.Array]:
  """The constant of views that the stage `views` has made; nothing where there is none."""
  return {"views": inputs["views"]["views"]} if "views" in inputs else {}


def whole_pictures(features: Mapping[str, jax.Array]) -> dict[str, Any]:
  """The constant of features that a backbone which is not trained has made of whole pictures.

  Args:
    features: Outputs of the stage `udh_jax.stages.features`.
  """
  return {"whole": {name: features[name] for name in ("features", "length", "centre")}}


MADE_BEFORE = frozenset({"views", "whole"})  # constants in place of which pictures are not read


def initial_state(
  parameters: Any, optimizer: optax.GradientTransformation, seed: int
) -> dict[str, Any]:
  """What `descend` carries from step to step, before the first."""
  return {
    "parameters": jax.tree.map(jnp.copy, parameters),  # a step donates its state
    "optimizer": optimizer.init(parameters),
    "key": jax.random.key_data(jax.random.key(seed)),
    "step": jnp.int32(0),
  }


def descend(
  loss: Loss, optimizer: optax.GradientTransformation
) -> Callable[[dict[str, Any], Any, Batch], tuple[dict[str, Any], dict[str, jax.Array]]]:
  """One step of gradient descent: ``(state, constants, batch) -> (state, metrics)``; pure.

  Args:
    loss: See `Loss`.
    optimizer: Of the state's parameters.
  """

  def step(state, constants, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
    batch = batch | {
      "weight": (batch["index"] >= 0).astype(jnp.float32),
      "step": state["step"],
    }
    (value, metrics), gradients = jax.value_and_grad(loss, has_aux=True)(
      state["parameters"], constants, batch, key
    )
    updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["parameters"])
    after = {
      "parameters": optax.apply_updates(state["parameters"], updates),
      "optimizer": optimizer_state,
      "key": state["key"],
      "step": state["step"] + 1,
    }
    return after, {"loss": value, **metrics}

  return step


class LocalRows:
  """What this process reads of each step's rows.

  Args:
    mesh: All devices.
    rows: By step, the rows that all processes read together; a multiple of the devices.
  """

  def __init__(self, mesh, rows):
    self._mesh, self._rows = mesh, rows

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, step: int) -> np.ndarray:
    return mesh_lib.local_rows(self._mesh, self._rows[step])


class _FilledBatches:
  """Shuffled batches, each filled up with -1 to a multiple of the devices."""

  def __init__(self, rows, batch_size, *, seed, num_devices, num_steps):
    self._batches = ShuffledBatches(rows, batch_size, seed=seed)
    padded = mesh_lib.RowLayout(batch_size, num_devices).padded_rows
    self._filler = np.full(padded - batch_size, -1)
    self._num_steps = num_steps

  def __len__(self):
    return self._num_steps

  def __getitem__(self, step):
    return np.concatenate([self._batches[step], self._filler])


def batches_of(
  context: Context,
  *,
  batch_size: int,
  seed: int,
  num_steps: int,
  first: int,
  images: bool = True,
) -> Iterator[Batch]:
  """Random batches of the training images, filled up with -1 to a multiple of the devices.

  Args:
    context: Devices and images.
    batch_size: Images of a batch.
    seed: Decides the order of the images.
    num_steps: How many batches there are.
    first: Which one to begin with.
    images: Whether images are read, or their numbers alone.
  """
  mesh = context.mesh
  rows = _FilledBatches(
    context.dataset.splits.train,
    batch_size,
    seed=seed,
    num_devices=mesh.size,
    num_steps=num_steps,
  )
  read = read_batches(context.dataset, LocalRows(mesh, rows), start=first, images=images)
  try:
    for batch in read:
      yield {name: mesh_lib.shard_local(mesh, value) for name, value in batch.items()}
  finally:
    read.close()


def train(
  context: Context,
  loss: Loss,
  network: NewNetwork,
  constants: Any,
  *,
  settings: ConfigDict,
  seed: int,
  optimizer: optax.GradientTransformation | None = None,
  num_steps: int | None = None,
  images: bool = True,
  finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda trained: trained,
) -> Work:
  """Work that minimises ``loss`` over random batches of the training images.

  A batch is filled up with weight 0 to a multiple of the devices, so that the same images make
  the same step on any number of them.

  Args:
    context: Devices and images.
    loss: A pure function, see `Loss`; what of the network's variables is not trained is in
      ``constants["fixed"]``.
    network: To be trained.
    constants: What else ``loss`` reads, on all devices; with `made_views` or `whole_pictures`
      images are not read.
    settings: ``batch_size``, ``trained`` (see `NewNetwork`), and ``steps`` and those of
      `make_optimizer` unless the next two are given.
    seed: Decides the order of the images and the random key.
    optimizer: None is `make_optimizer`.
    num_steps: None is ``settings.steps``.
    images: Whether ``loss`` looks at the batch's ``image``; else they are not read.
    finish: From the trained network to the stage's outputs.

  Returns:
    The work; its state holds parameters, optimiser, random key and step.
  """
  num_steps = settings.steps if num_steps is None else num_steps
  network = network._replace(trained=settings.trained)
  whole = mesh_lib.replicated(context.mesh)
  constants = {"fixed": network.fixed, **constants}
  optimizer = make_optimizer(settings, network.fresh) if optimizer is None else optimizer
  step = jax.jit(descend(loss, optimizer), donate_argnums=0, out_shardings=whole)
  begin = jax.jit(initial_state, static_argnums=(1, 2), out_shardings=whole)

  def batches(first: int) -> Iterator[Batch]:
    return batches_of(
      context,
      batch_size=settings.batch_size,
      seed=seed,
      num_steps=num_steps,
      first=first,
      images=images and MADE_BEFORE.isdisjoint(constants),
    )

  return Work(
    state=begin(network.parameters, optimizer, seed),
    step=lambda state, batch: step(state, constants, batch),
    num_steps=num_steps,
    batches=batches,
    finish=lambda state: finish(network.with_parameters(state["parameters"])),
    images_per_step=settings.batch_size,
  )
