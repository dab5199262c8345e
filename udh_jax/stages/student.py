"""A similarity of pairs in, an asymmetric student out: networks, and one code for each pair.

DUDCH's second half. U and G are the outputs of the image and the text network for some sampled
pairs, V the codes of all training pairs. They take turns: the networks learn with V held fixed,
then show U and G, then V is improved by discrete cyclic coordinate descent with U and G held fixed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from udh_jax.coding import baselines as baselines_lib
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.coding.dcc import dcc
from udh_jax.data.loader import read_batches
from udh_jax.losses.asymmetric import code_problem, network_loss, objective
from udh_jax.numerics import matmul
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.symmetric import similarity_product, similarity_row_norms
from udh_jax.stages.baselines import fit
from udh_jax.stages.features import reading_size
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.network import NewNetwork, variables_of
from udh_jax.stages.pair_network import (
  features_read,
  image_view,
  new_pair_network,
  pair_optimizer,
  reads_features,
  training_outputs,
)
from udh_jax.stages.rounds import CODES, EMBED, TRAIN, Rounds
from udh_jax.stages.training import LocalRows, descend, initial_state

DISCRETE = ("dcc", "sign")


class Task(NamedTuple):
  """What the turns share and do not change.

  Attributes:
    network: The student's, before training.
    settings: Its configuration.
    shares: Options of `udh_jax.similarity.symmetric.similarity_product`.
    gamma: Weight of the distance between codes and outputs.
    scale: n c^2: divides the objective, so that it is a mean over pairs and cosines.
    num_sampled: Pairs of a round.
    placement: Where the codes' arrays lie.
    whole: A copy on each device.
  """

  network: NewNetwork
  settings: ConfigDict
  shares: Mapping[str, Any]
  gamma: float
  scale: float
  num_sampled: int
  placement: Mapping[str, Any]
  whole: Any


def with_products(
  task: Task, codes: jax.Array, factors: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
  """V with S V and V^T V: all that the networks need of the codes."""
  made = {
    "codes": codes,
    "target": similarity_product(factors["images"], factors["texts"], codes, **task.shares),
    "gram": matmul(codes.T, codes),
  }
  return {name: lax.with_sharding_constraint(made[name], task.placement[name]) for name in made}


def networks_turn(task: Task, optimizer: optax.GradientTransformation) -> Callable:
  """U and G learn, V is fixed: one step of gradient descent on a batch of sampled pairs."""
  forward = training_outputs(task.network, task.settings)

  def loss(parameters, constants, batch, key):
    outputs = forward(parameters, constants, batch, key)
    rows, weights = batch["index"], batch["weight"]
    value = sum(
      network_loss(
        jnp.tanh(h),
        constants["codes"][rows],
        constants["target"][rows],
        constants["gram"],
        weights,
        gamma=task.gamma,
        scale=task.scale,
      )
      for h in outputs
    )
    return value, {}

  step = descend(loss, optimizer)

  def turn(state, constants, batch):
    fixed = {name: state[name] for name in task.placement}
    learned = {name: state[name] for name in ("parameters", "optimizer", "key", "step")}
    learned, metrics = step(learned, constants | fixed, batch)
    return state | lax.with_sharding_constraint(learned, task.whole), metrics

  return turn


def outputs_turn(task: Task, view: Callable) -> Callable:
  """U and G are shown: outputs of the networks for a batch of the sampled pairs."""

  from_features = reads_features(task.network.stored)

  def turn(state, constants, batch):
    images, texts = task.network.module.apply(
      variables_of(state["parameters"], constants["fixed"]),
      view(batch, constants["frozen"]),
      batch["text"],
      from_features=from_features,
    )
    outputs = {
      side: state["outputs"][side].at[batch["slot"]].set(jnp.tanh(h), mode="drop")
      for side, h in (("images", images), ("texts", texts))
    }
    return state | {"outputs": lax.with_sharding_constraint(outputs, task.whole)}, {}

  return turn


def codes_turn(task: Task) -> Callable:
  """V is improved, U and G are fixed; rows that are not for training stay 0."""

  def turn(state, constants, sampled):
    images, texts = state["outputs"]["images"], state["outputs"]["texts"]
    factors = constants["factors"]
    problem = code_problem(
      images,
      texts,
      sampled,
      factors,
      constants["row_norms"],
      gamma=task.gamma,
      shares=task.shares,
    )
    if task.settings.discrete == "dcc":
      codes = dcc(state["codes"], problem.linear, problem.gram, num_sweeps=task.settings.sweeps)
      codes = codes * constants["weights"][:, None]
    else:
      codes = state["codes"].at[sampled].set(sign(images + texts))
    size = 2 * task.num_sampled * task.scale
    metrics = {
      "objective_of_networks": objective(state["codes"], problem) / size,
      "objective_of_codes": objective(codes, problem) / size,
    }
    return state | with_products(task, codes, factors), metrics

  return turn


def first_codes(
  context: Context, config: ConfigDict, factors: Mapping[str, jax.Array]
) -> jax.Array:
  """Codes to begin with: ITQ of both factors side by side, or LSH where they are too narrow."""
  features = jnp.concatenate([factors["images"], factors["texts"]], axis=1)
  name = "itq" if config.bits <= features.shape[1] else "lsh"
  fitted = fit(context, name, features, config.bits, config.seed)
  return baselines_lib.encode(fitted, features).astype(jnp.float32)


def read_turns(
  context: Context, rounds: Rounds, first: int, *, images: bool = True
) -> Iterator[tuple[str, Any]]:
  """What each step from ``first`` on reads: whose turn it is, and a batch or the sampled rows.

  Args:
    context: Devices and images.
    rounds: The steps.
    first: Where to begin.
    images: Whether batches hold images, or their numbers and texts alone.
  """
  mesh: Mesh = context.mesh
  read = read_batches(context.dataset, LocalRows(mesh, rounds), start=first, images=images)
  try:
    for step, batch in zip(range(first, len(rounds)), read, strict=True):
      kind = rounds.kind(step)
      if kind == CODES:
        yield kind, mesh_lib.replicate(mesh, rounds.sampled(step).astype(np.int32))
        continue
      if kind == EMBED:
        batch["slot"] = mesh_lib.local_rows(mesh, rounds.slots(step)).astype(np.int32)
      yield kind, {name: mesh_lib.shard_local(mesh, value) for name, value in batch.items()}
  finally:
    read.close()


def student(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the student: networks by gradient descent, codes by DCC, in turns.

  Every row of the objective is exact: of S and V no more than ``[rows, bits]`` is ever held.
  After each round the objective is noted before and after the codes' half step, divided by
  2 m n c^2: a mean squared error of cosines, plus ``student.quantisation_weight`` times a mean
  squared distance of bits from outputs. Gamma of `code_problem` is that weight times n c, so that
  the weight means the same at every length and number of pairs.

  Inputs: ``similarity``; ``backbone`` where images are pictures, and its ``features``.

  Outputs: a network whose ``variables`` are those of `PairNetwork`, and ``learned_codes``, V
  packed, ``[rows, ceil(bits / 8)]``, where all pairs of the database are trained on.

  References:
    DUDCH: asymmetric student and discrete cyclic coordinate descent are the paper's; the objective
    is our own. ``student.discrete = "sign"`` takes V_s = sign(U + G): the ablation.
  """
  settings, bits, factors = config.student, config.bits, dict(inputs["similarity"])
  mesh, num_train = context.mesh, len(context.dataset.splits.train)
  by_rows, whole = mesh_lib.row_sharding(mesh), mesh_lib.replicated(mesh)
  rounds = Rounds(context.dataset.splits.train, settings, seed=config.seed, num_devices=mesh.size)
  network = new_pair_network(context, config, settings, inputs, bits=bits)
  network = network._replace(trained=settings.trained)
  task = Task(
    network,
    settings,
    dict(config.similarity),
    gamma=settings.quantisation_weight * num_train * bits,
    scale=float(num_train * bits**2),
    num_sampled=rounds.num_sampled,
    placement={"codes": by_rows, "target": by_rows, "gram": whole},
    whole=whole,
  )
  weights = train_weights(context)
  constants = {
    "fixed": network.fixed,
    "frozen": features_read(network.stored, inputs),
    "factors": factors,
    "weights": weights,
    "row_norms": jax.jit(functools.partial(similarity_row_norms, **task.shares))(
      factors["images"], factors["texts"], weights
    ),
  }
  optimizer = pair_optimizer(settings, settings.rounds * rounds.train_steps)
  turns = {
    TRAIN: networks_turn(task, optimizer),
    EMBED: outputs_turn(task, image_view(network.stored, reading_size(config))),
    CODES: codes_turn(task),
  }
  turns = {kind: jax.jit(turn, donate_argnums=0) for kind, turn in turns.items()}

  @functools.partial(jax.jit, out_shardings=whole)
  def networks_start(parameters):
    outputs = {
      side: jnp.zeros((rounds.num_sampled, bits), jnp.float32) for side in ("images", "texts")
    }
    return initial_state(parameters, optimizer, config.seed) | {"outputs": outputs}

  @functools.partial(jax.jit, out_shardings=task.placement)
  def codes_start(codes, factors, weights):
    return with_products(task, codes * weights[:, None], factors)

  splits = context.dataset.splits
  of_all = np.array_equal(np.sort(splits.train), np.sort(splits.database))

  def finish(state):
    trained = network.with_parameters(state["parameters"])
    if not of_all:
      return trained
    pack = jax.jit(lambda codes: pack_codes(sign(codes)), out_shardings=by_rows)
    return trained | {"learned_codes": pack(state["codes"])}

  return Work(
    state={
      **networks_start(network.parameters),
      **codes_start(first_codes(context, config, factors), factors, weights),
    },
    step=lambda state, batch: turns[batch[0]](state, constants, batch[1]),
    num_steps=rounds.num_steps,
    batches=lambda first: read_turns(
      context, rounds, first, images=not reads_features(network.stored)
    ),
    finish=finish,
    row_state=("codes", "target"),
    row_outputs=("learned_codes",) if of_all else (),
    images_per_step=settings.batch_size,
  )


# Version 2: no learned codes where pairs of the database have none.
STAGE = Stage(
  "student",
  student,
  ("student", "similarity", "features.image_sizes", "bits", "seed", "dtype"),
  version=2,
)
