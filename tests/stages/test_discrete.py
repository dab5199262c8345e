import itertools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.coding.binary import sign
from udh_jax.coding.dcc import dcc
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.encoders.pair import pair_module
from udh_jax.errors import InputError
from udh_jax.methods import defaults
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.runner import select
from udh_jax.runtime.stage import Context
from udh_jax.similarity.symmetric import similarity_row_norms
from udh_jax.stages import discrete
from udh_jax.stages.discrete import Rounds, objective
from udh_jax.stages.network import facts

SHARES = {"image_share": 0.3, "cross_share": 0.6}


def settings(**changes):
  values = {"rounds": 3, "sampled_pairs": 7, "epochs": 2, "batch_size": 4} | changes
  return ConfigDict(values)


@pytest.fixture
def made(rng):
  """Factors and outputs for 11 training pairs of 13, 5 of them sampled, 6 bits."""
  images, texts = rng.normal(size=(2, 13, 4))
  images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts))
  weights = np.ones(13)
  weights[[2, 9]] = 0
  sampled = np.array([12, 0, 5, 7, 3])
  outputs = np.tanh(rng.normal(size=(2, 5, 6)))
  codes = np.where(rng.normal(size=(13, 6)) >= 0, 1.0, -1.0) * weights[:, None]
  return {"images": images, "texts": texts}, weights, sampled, outputs, codes


def code_problem(images, texts, sampled, factors, weights, *, gamma):
  norms = similarity_row_norms(factors["images"], factors["texts"], weights, **SHARES)
  return discrete.code_problem(images, texts, sampled, factors, norms, gamma=gamma, shares=SHARES)


def dense_objective(factors, weights, sampled, outputs, codes, gamma):
  """The student's objective term by term, with the whole matrix."""
  images, texts = factors["images"], factors["texts"]
  across = images @ texts.T
  own = 0.3 * images @ images.T + 0.7 * texts @ texts.T
  matrix = 0.4 * own + 0.6 * (across + across.T) / 2
  train = np.flatnonzero(weights)
  bits = codes.shape[1]
  total = 0.0
  for output in outputs:
    for row, pair in enumerate(sampled):
      total += sum((output[row] @ codes[j] - bits * matrix[pair, j]) ** 2 for j in train)
      total += gamma * ((codes[pair] - output[row]) ** 2).sum()
  return total


@pytest.mark.parametrize("gamma", [0.0, 3.0, 200.0])
def test_objective_is_the_sum_of_its_terms(made, gamma):
  factors, weights, sampled, (images, texts), codes = made
  problem = code_problem(images, texts, sampled, factors, weights, gamma=gamma)
  expected = dense_objective(*made[:3], (images, texts), codes, gamma)
  assert np.isclose(objective(codes, problem), expected, rtol=1e-4)


def test_no_dcc_sweep_raises_the_objective(made, rng):
  factors, weights, sampled, (images, texts), codes = made
  for trial in range(20):
    start = np.where(rng.normal(size=codes.shape) >= 0, 1.0, -1.0)
    problem = code_problem(images, texts, sampled, factors, weights, gamma=trial)
    values = [
      dense_objective(
        factors,
        weights,
        sampled,
        (images, texts),
        np.asarray(dcc(start, problem.linear, problem.gram, num_sweeps=sweeps)) * weights[:, None],
        trial,
      )
      for sweeps in range(4)
    ]
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_dcc_is_better_than_the_sign_of_the_outputs(made):
  factors, weights, sampled, (images, texts), codes = made
  problem = code_problem(images, texts, sampled, factors, weights, gamma=1.0)
  signs = codes.copy()
  signs[sampled] = np.asarray(sign(images + texts))
  found = dcc(np.where(signs == 0, 1, signs), problem.linear, problem.gram, num_sweeps=3)
  value = objective(np.asarray(found) * weights[:, None], problem)
  assert value < objective(signs, problem)


def test_networks_and_codes_improve_one_objective(made, rng):
  factors, weights, *_ = made
  config = defaults.dudch("wikipedia", path="")
  config.update(bits=6, similarity=SHARES)
  config.student.update(
    rounds=1, sampled_pairs=5, batch_size=3, hidden=7, sweeps=2, quantisation_weight=0.4
  )
  config = select(config, discrete.FIELDS)
  rows = np.arange(13)
  train = rows[weights > 0]
  images, texts = rng.normal(size=(13, 5)), rng.normal(size=(13, 4))
  dataset = Dataset(
    name="made",
    images=images.astype(np.float32),
    image_shape=(5,),
    labels=None,
    names=[str(row) for row in rows],
    class_names=[],
    splits=Splits(train=train, database=train, query=rows[weights == 0]),
    protocol="made",
    digest="",
    texts=texts.astype(np.float32),
  )
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  factors = {side: values.astype(np.float32) for side, values in factors.items()}
  work = discrete.discrete(Context(mesh, dataset), config, {"similarity": factors})
  network = work.finish(work.state)
  module = pair_module(facts(network), "float32")
  fixed = {name: v for name, v in network["variables"].items() if name != "params"}
  gamma = 0.4 * 11 * 6  # weight x pairs x bits

  def outputs(parameters, rows):
    variables = {"params": parameters, **fixed}
    return [np.tanh(h) for h in module.apply(variables, dataset.images[rows], dataset.texts[rows])]

  state, kinds = work.state, []
  for kind, batch in work.batches(0):
    parameters, codes = jax.device_get((state["parameters"], state["codes"]))
    assert (codes[weights == 0] == 0).all()
    if kind == "codes":
      sampled = np.asarray(batch)
      both = outputs(parameters, sampled)
    state, metrics = work.step(state, (kind, batch))
    kinds.append(kind)
    if kind == "train":
      seen = np.asarray(batch["index"])
      seen = seen[seen >= 0]
      relaxed = outputs(parameters, seen)
      value = dense_objective(factors, weights, seen, relaxed, codes, gamma)
      # The networks' loss leaves out what they cannot change: the squares of S.
      value -= dense_objective(factors, weights, seen, np.zeros((2, len(seen), 6)), 0 * codes, 0)
      np.testing.assert_allclose(metrics["loss"], value / (11 * 36) / len(seen), rtol=1e-4)
  assert kinds == ["train"] * 2 + ["embed"] * 2 + ["codes"]
  after = np.asarray(state["codes"])
  for name, found in (("objective_of_networks", codes), ("objective_of_codes", after)):
    expected = dense_objective(factors, weights, sampled, both, found, gamma) / (2 * 5 * 11 * 36)
    np.testing.assert_allclose(metrics[name], expected, rtol=1e-4)
  assert metrics["objective_of_codes"] <= metrics["objective_of_networks"]


def test_each_round_draws_trains_embeds_and_codes():
  rows = np.arange(100, 110)
  rounds = Rounds(rows, settings(batch_size=5), seed=1, num_devices=3)
  kinds = [rounds.kind(step) for step in range(len(rounds))]
  assert kinds == (["train"] * 3 + ["embed"] * 2 + ["codes"]) * 3
  draws = []
  for start in (0, 6, 12):
    sampled = rounds.sampled(start)
    draws.append(tuple(sampled))
    assert len(set(sampled)) == 7 and set(sampled) <= set(rows)
    trained = np.concatenate([rounds[start + i] for i in range(3)])
    trained = trained[trained >= 0]
    counts = np.unique(trained, return_counts=True)[1]
    assert len(trained) == 15 and set(trained) == set(sampled) and counts.min() >= 2
    shown = np.full(8, -1)  # the last place is nowhere
    for step in (start + 3, start + 4):
      read, slots = rounds[step], rounds.slots(step)
      assert len(read) == len(slots) == 6  # filled up to a multiple of the devices
      shown[slots[read >= 0]] = read[read >= 0]
      assert (slots[read < 0] == 7).all()
    np.testing.assert_array_equal(shown[:7], sampled)
    assert (rounds[start + 5] == -1).all()
  assert len(set(draws)) == 3


def test_more_sampled_pairs_than_there_are_take_them_all():
  rounds = Rounds(np.arange(5), settings(sampled_pairs=2000), seed=0, num_devices=1)
  assert sorted(rounds.sampled(0)) == list(range(5))


@pytest.mark.parametrize("field", ["rounds", "sampled_pairs", "epochs", "batch_size"])
def test_counts_below_one_are_refused(field):
  with pytest.raises(InputError, match=f"student.{field} is 0"):
    Rounds(np.arange(5), settings(**{field: 0}), seed=0, num_devices=1)
