"""A similarity of pairs in, an asymmetric student out: networks, and one code for each pair.

The networks learn from sampled pairs, the codes of all training pairs by discrete cyclic coordinate
descent, in turns: DUDCH's second half.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from udh_jax.coding import baselines as baselines_lib
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.coding.dcc import dcc
from udh_jax.data.loader import ShuffledBatches, read_batches
from udh_jax.data.protocol import SAMPLE, permutation
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.similarity.symmetric import similarity_product, similarity_row_norms
from udh_jax.stages.baselines import fit
from udh_jax.stages.features import reading_size
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.pair_network import (
  image_view,
  new_pair_network,
  pair_optimizer,
  training_outputs,
)

FIELDS = ("student", "similarity", "features.image_sizes", "bits", "seed", "dtype")
_TRAIN, _EMBED, _CODES = "train", "embed", "codes"


class Rounds:
  """Which pairs each step reads, as a pure function of the step's number.

  A round draws some training pairs, trains on them, then shows each of them to the networks once,
  then improves the codes of all pairs.
  """

  def __init__(self, rows: np.ndarray, settings, *, seed: int, num_devices: int):
    """Keeps the arguments.

    Args:
      rows: The training pairs. Integer array of shape ``[n]``.
      settings: ``rounds``, ``sampled_pairs``, ``epochs`` (over them, in each round) and
        ``batch_size``.
      seed: Decides every draw.
      num_devices: Batches are filled up with -1 to a multiple of it.
    """
    for name in ("rounds", "sampled_pairs", "epochs", "batch_size"):
      require(settings[name] >= 1, f"student.{name} is {settings[name]}; it has to be 1 or more.")
    self._size = settings.batch_size
    self.num_sampled = min(settings.sampled_pairs, len(rows))
    self._padding = -self._size % num_devices
    self.train_steps = -(-settings.epochs * self.num_sampled // self._size)
    self.embed_steps = -(-self.num_sampled // self._size)
    self.round_steps = self.train_steps + self.embed_steps + 1
    self.num_steps = settings.rounds * self.round_steps
    self._draw = functools.lru_cache(maxsize=2)(
      lambda number: rows[permutation(len(rows), seed, SAMPLE, number)[: self.num_sampled]]
    )
    self._order = functools.lru_cache(maxsize=2)(
      lambda number: ShuffledBatches(self._draw(number), self._size, seed=seed)
    )

  def __len__(self) -> int:
    return self.num_steps

  def kind(self, step: int) -> str:
    """What a step does."""
    position = step % self.round_steps
    if position < self.train_steps:
      return _TRAIN
    return _EMBED if position < self.round_steps - 1 else _CODES

  def sampled(self, step: int) -> np.ndarray:
    """The pairs of the step's round. Array of shape ``[num_sampled]``, int64."""
    return self._draw(step // self.round_steps)

  def slots(self, step: int) -> np.ndarray:
    """Where among the sampled pairs the rows of an embedding step stand; num_sampled is nowhere."""
    first = (step % self.round_steps - self.train_steps) * self._size
    slots = np.minimum(first + np.arange(self._size), self.num_sampled)
    return np.append(slots, np.full(self._padding, self.num_sampled))

  def __getitem__(self, step: int) -> np.ndarray:
    """Rows that a step reads, -1 for padding; none but padding where codes are improved."""
    kind, sampled = self.kind(step), self.sampled(step)
    if kind == _TRAIN:
      number, position = divmod(step, self.round_steps)
      rows = self._order(number)[position]
    elif kind == _EMBED:
      slots = self.slots(step)[: self._size]
      rows = np.append(sampled, -1)[slots]
    else:
      rows = np.full(self._size, -1)
    return np.append(rows, np.full(self._padding, -1))


class Problem(NamedTuple):
  """What the objective is made of, for networks held fixed.

  Attributes:
    linear: Q of `udh_jax.dcc`. Array of shape ``[rows, c]``.
    gram: A of it. Array of shape ``[c, c]``.
    constant: What the codes cannot change. Scalar.
  """

  linear: jax.Array
  gram: jax.Array
  constant: jax.Array


def code_problem(images, texts, sampled, factors, row_norms, *, gamma: float, shares) -> Problem:
  """The student's objective as a function of the codes V of all pairs.

  ||U V^T - c S||_F^2 + ||G V^T - c S||_F^2 + gamma (||V_s - U||^2 + ||V_s - G||^2), where U and G
  are the networks' outputs for the sampled pairs s and S has their rows.

  Args:
    images: U. Array of shape ``[m, c]``.
    texts: G. Array of shape ``[m, c]``.
    sampled: Rows of the sampled pairs, each once. Integer array of shape ``[m]``.
    factors: ``images`` and ``texts`` of the stage `udh_jax.stages.similarity`.
    row_norms: `similarity_row_norms` of the training pairs. Array of shape ``[rows]``.
    gamma: Weight of the distance between codes and outputs.
    shares: Options of `similarity_product`.

  References:
    methods.md section 2 (our own, of the shape of ADSH, Jiang and Li, AAAI 2018) and section 3.
  """
  bits = images.shape[1]
  placed = jnp.zeros((len(row_norms), bits)).at[sampled].set(images + texts)
  product = similarity_product(factors["images"], factors["texts"], placed, **shares)
  exact = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  squares = jnp.sum(images**2) + jnp.sum(texts**2)
  return Problem(
    bits * product + gamma * placed,
    exact(images.T, images) + exact(texts.T, texts),
    2.0 * bits**2 * row_norms[sampled].sum() + gamma * (2 * images.size + squares),
  )


def objective(codes, problem: Problem):
  """The value of `code_problem` for codes; rows of 0 are left out.

  Args:
    codes: V. Array of shape ``[rows, c]``.
    problem: Of the same rows.

  Returns:
    Scalar.
  """
  quadratic = jnp.matmul(codes, problem.gram, precision=lax.Precision.HIGHEST)
  return jnp.sum(codes * (quadratic - 2 * problem.linear)) + problem.constant


def first_codes(context: Context, config, factors) -> jax.Array:
  """Codes to begin with: ITQ of both factors side by side, or LSH where they are too narrow."""
  features = jnp.concatenate([factors["images"], factors["texts"]], axis=1)
  name = "itq" if config.bits <= features.shape[1] else "lsh"
  fitted = fit(context, name, features, config.bits, config.seed)
  return baselines_lib.encode(fitted, features).astype(jnp.float32)


def discrete(context: Context, config, inputs) -> Work:
  """Trains the student: networks by gradient descent, codes by DCC, in turns.

  Every row of the objective is exact: of S and V no more than ``[rows, bits]`` is ever held.
  After each round the objective is noted before and after the codes' half step, divided by
  2 m n c^2: a mean squared error of cosines, plus ``student.quantisation_weight`` times a mean
  squared distance of bits from outputs. Gamma of `code_problem` is that weight times n c, so that
  the weight means the same at every length and number of pairs.

  Inputs: ``similarity``, and ``backbone`` where images are pictures.

  Outputs: a network whose ``variables`` are those of `PairNetwork`, and ``learned_codes``, V
  packed, ``[rows, ceil(bits / 8)]``, of no meaning outside the training pairs.

  References:
    DUDCH: asymmetric student and discrete cyclic coordinate descent are the paper's; the objective
    is our own (methods.md section 2). ``student.discrete = "sign"`` takes V_s = sign(U + G): the
    ablation.
  """
  settings, bits = config.student, config.bits
  require(
    settings.discrete in ("dcc", "sign"),
    f"student.discrete is {settings.discrete!r}; choose 'dcc' or 'sign'.",
  )
  mesh, dataset, factors = context.mesh, context.dataset, inputs["similarity"]
  shares = dict(config.similarity)
  module, network = new_pair_network(context, config, settings, inputs.get("backbone"), bits=bits)
  fixed = {kind: tree for kind, tree in network["variables"].items() if kind != "params"}
  forward = training_outputs(module, network, settings)
  whole_view = image_view(network, reading_size(config))
  rounds = Rounds(dataset.splits.train, settings, seed=config.seed, num_devices=mesh.size)
  optimizer = pair_optimizer(settings, settings.rounds * rounds.train_steps)
  num_train = len(dataset.splits.train)
  scale = float(num_train * bits**2)
  gamma = settings.quantisation_weight * num_train * bits
  by_rows, whole = mesh_lib.row_sharding(mesh), mesh_lib.replicated(mesh)
  weights = train_weights(context)
  row_norms = jax.jit(functools.partial(similarity_row_norms, **shares))(
    factors["images"], factors["texts"], weights
  )
  constants = {
    "fixed": fixed,
    "factors": dict(factors),
    "weights": weights,
    "row_norms": row_norms,
  }

  def products(codes, factors):
    """S V and V^T V: all that the networks need of the codes."""
    return {
      "codes": codes,
      "target": similarity_product(factors["images"], factors["texts"], codes, **shares),
      "gram": jnp.matmul(codes.T, codes, precision=lax.Precision.HIGHEST),
    }

  placement = {"codes": by_rows, "target": by_rows, "gram": whole}
  begin = jax.jit(
    lambda codes, factors, weights: products(codes * weights[:, None], factors),
    out_shardings=placement,
  )

  def start(parameters):
    return {
      "parameters": jax.tree.map(jnp.copy, parameters),  # a step donates its state
      "optimizer": optimizer.init(parameters),
      "key": jax.random.key_data(jax.random.key(config.seed)),
      "step": jnp.int32(0),
      "outputs": {side: jnp.zeros((rounds.num_sampled, bits)) for side in ("images", "texts")},
    }

  def loss(parameters, state, constants, batch, key):
    outputs = forward(parameters, constants["fixed"], batch, key)
    rows = batch["index"]
    there = (rows >= 0).astype(jnp.float32)

    def per_row(h):
      relaxed = jnp.tanh(h)  # [b, c]
      quadratic = jnp.sum((relaxed @ state["gram"]) * relaxed, axis=1)
      linear = jnp.sum(relaxed * state["target"][rows], axis=1)
      apart = jnp.sum((relaxed - state["codes"][rows]) ** 2, axis=1)
      return (quadratic - 2 * bits * linear + gamma * apart) / scale

    return sum(there @ per_row(h) for h in outputs) / jnp.maximum(there.sum(), 1)

  @functools.partial(jax.jit, donate_argnums=0)
  def train_step(state, constants, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])
    value, gradients = jax.value_and_grad(loss)(state["parameters"], state, constants, batch, key)
    updates, optimizer_state = optimizer.update(gradients, state["optimizer"], state["parameters"])
    changed = {
      "parameters": optax.apply_updates(state["parameters"], updates),
      "optimizer": optimizer_state,
      "step": state["step"] + 1,
    }
    return state | lax.with_sharding_constraint(changed, whole), {"loss": value}

  @functools.partial(jax.jit, donate_argnums=0)
  def embed_step(state, constants, batch):
    images, texts = module.apply(
      {"params": state["parameters"], **constants["fixed"]}, whole_view(batch), batch["text"]
    )
    outputs = {
      side: state["outputs"][side].at[batch["slot"]].set(jnp.tanh(h), mode="drop")
      for side, h in (("images", images), ("texts", texts))
    }
    return state | {"outputs": lax.with_sharding_constraint(outputs, whole)}, {}

  @functools.partial(jax.jit, donate_argnums=0)
  def code_step(state, constants, sampled):
    images, texts = state["outputs"]["images"], state["outputs"]["texts"]
    factors = constants["factors"]
    problem = code_problem(
      images,
      texts,
      sampled,
      factors,
      constants["row_norms"],
      gamma=gamma,
      shares=shares,
    )
    if settings.discrete == "dcc":
      codes = dcc(state["codes"], problem.linear, problem.gram, num_sweeps=settings.sweeps)
      codes = codes * constants["weights"][:, None]
    else:
      codes = state["codes"].at[sampled].set(sign(images + texts))
    size = 2 * rounds.num_sampled * scale
    metrics = {
      "objective_of_networks": objective(state["codes"], problem) / size,
      "objective_of_codes": objective(codes, problem) / size,
    }
    made = products(codes, factors)
    made = {name: lax.with_sharding_constraint(made[name], placement[name]) for name in made}
    return state | made, metrics

  steps = {_TRAIN: train_step, _EMBED: embed_step, _CODES: code_step}

  class LocalRows:
    """What this process reads of each step's rows."""

    def __len__(self):
      return len(rounds)

    def __getitem__(self, step):
      return mesh_lib.local_rows(mesh, rounds[step])

  def batches(first: int) -> Iterator[tuple[str, Any]]:
    read = read_batches(dataset, LocalRows(), start=first)
    try:
      for step, batch in zip(range(first, len(rounds)), read, strict=True):
        kind = rounds.kind(step)
        if kind == _CODES:
          yield kind, mesh_lib.replicate(mesh, rounds.sampled(step).astype(np.int32))
          continue
        if kind == _EMBED:
          batch["slot"] = mesh_lib.local_rows(mesh, rounds.slots(step)).astype(np.int32)
        yield kind, {name: mesh_lib.shard_local(mesh, value) for name, value in batch.items()}
    finally:
      read.close()

  def finish(state):
    codes = jax.jit(lambda codes: pack_codes(sign(codes)), out_shardings=by_rows)(state["codes"])
    return {
      "variables": {"params": state["parameters"], **fixed},
      "about": network["about"],
      "learned_codes": codes,
    }

  return Work(
    state={
      **jax.jit(start, out_shardings=whole)(network["variables"]["params"]),
      **begin(first_codes(context, config, factors), constants["factors"], weights),
    },
    step=lambda state, batch: steps[batch[0]](state, constants, batch[1]),
    num_steps=rounds.num_steps,
    batches=batches,
    finish=finish,
    row_state=("codes", "target"),
    row_outputs=("learned_codes",),
    images_per_step=settings.batch_size,
  )
