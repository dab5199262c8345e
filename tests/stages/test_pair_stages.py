"""DJSRH, UCCH and plain contrast, step by step, and what DUDCH takes of its teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.encoders.pair import pair_module
from udh_jax.losses.contrastive import nt_xent
from udh_jax.losses.cross_modal import sharpness
from udh_jax.losses.ucch import memory_contrast, ranking_loss
from udh_jax.methods import djsrh as djsrh_method
from udh_jax.methods import dudch, pair_contrast, ucch
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.stages import djsrh, pair_network, similarity, student
from udh_jax.stages import pair_contrast as pair_contrast_stage
from udh_jax.stages import ucch as ucch_stage
from udh_jax.stages.network import facts

PAIRS, BITS = 11, 6  # all are a batch, so that a step is an epoch
MORE = 15  # a batch in which some pairs are there twice


@pytest.fixture
def context(rng):
  rows = np.arange(PAIRS + 2)
  dataset = Dataset(
    name="made",
    images=rng.normal(size=(PAIRS + 2, 5)).astype(np.float32),
    image_shape=(5,),
    labels=None,
    names=[str(row) for row in rows],
    class_names=[],
    splits=Splits(train=rows[2:], database=rows[2:], query=rows[:2]),
    protocol="made",
    digest="",
    texts=rng.random((PAIRS + 2, 4)).astype(np.float32),
  )
  return Context(mesh_lib.make_mesh(jax.devices()[:1]), dataset)


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def epochs_of(context, stage, config, section, *, size=PAIRS, **options):
  """For each of three steps: rows, both outputs before it, metrics, and the state after it."""
  config.update(bits=BITS)
  config[section].update(batch_size=size, epochs=3, hidden=7, dropout=0.0)
  work = stage.build(context, select(config, stage.fields), {}, **options)
  network = work.finish(work.state)
  fixed = {name: v for name, v in network["variables"].items() if name != "params"}
  module, state = pair_module(facts(network), "float32"), work.state
  for batch in work.batches(0):
    rows = np.asarray(batch["index"])
    images, texts = context.dataset.images[rows], context.dataset.texts[rows]
    variables = {"params": jax.device_get(state["parameters"]), **fixed}
    outputs = [np.asarray(h) for h in module.apply(variables, images, texts)]
    state, metrics = work.step(state, batch)
    yield rows, outputs, {name: float(v) for name, v in metrics.items()}, jax.device_get(state)


def test_djsrh_rebuilds_the_joint_semantics_by_ever_steeper_codes(context):
  config = djsrh_method.default_config("features", path="")
  config.djsrh.update(beta=0.3, eta=0.4, mu=1.5, within_weight=0.2)
  steps = epochs_of(context, djsrh.STAGE, config, "djsrh", bits=BITS)
  for epoch, (rows, outputs, metrics, _) in enumerate(steps):
    images, texts = (unit(x[rows]) for x in (context.dataset.images, context.dataset.texts))
    first = 0.3 * (2 * images @ images.T - 1) + 0.7 * (2 * texts @ texts.T - 1)
    target = 1.5 * (0.6 * first + 0.4 * first @ first.T / PAIRS)
    u, v = (unit(np.tanh((epoch + 1) ** 0.5 * h)) for h in outputs)
    between = ((u @ v.T - target) ** 2).mean()
    within = sum(((x @ x.T - target) ** 2).mean() for x in (u, v))
    np.testing.assert_allclose(metrics["loss"], between + 0.2 * within, rtol=1e-3)


def test_the_epoch_is_exact_however_many_rows_have_been_read():
  for batch_size, num_rows, num_epochs in (
    (4096, 10_000_000, 300),
    (128, 46_341, 99_999),
    (10, 3, 20),
    (1, 1, 3),
    (7, 7, 5),
  ):
    num_steps = -(-num_epochs * num_rows // batch_size)
    some = np.linspace(0, num_steps - 1, 60).astype(int)
    starts = [-(-epoch * num_rows // batch_size) for epoch in (1, num_epochs // 2, num_epochs - 1)]
    around = {*some.tolist(), *starts, *(start - 1 for start in starts)}
    steps = sorted(step for step in around if step < num_steps)
    epoch_of = jax.jit(
      lambda step, n=num_rows, b=batch_size, e=num_epochs: djsrh.epoch_of(
        step, batch_size=b, num_rows=n, num_epochs=e
      )
    )
    found = [int(epoch_of(jnp.int32(step))) for step in steps]
    assert found == [step * batch_size // num_rows for step in steps]
  assert epoch_of(jnp.int32(0)).dtype == jnp.int32


@pytest.mark.parametrize("size", [PAIRS, MORE])
def test_plain_contrast_tells_pairs_apart(context, size):
  config = pair_contrast.default_config("features", path="")
  config.contrast.update(temperature=0.4, quantisation_weight=0.3)
  steps = epochs_of(context, pair_contrast_stage.STAGE, config, "contrast", size=size)
  for rows, outputs, metrics, _ in steps:
    u, v = (np.tanh(h) for h in outputs)
    quantisation = sum(((abs(x) - 1) ** 2).mean() for x in (u, v))
    expected = nt_xent(u, v, temperature=0.4, rows=rows) + 0.3 * quantisation
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-3)


@pytest.mark.parametrize("size", [PAIRS, MORE])
def test_ucch_begins_within_the_batch_and_remembers(context, size):
  config = ucch.default_config("features", path="")
  options = {"temperature": 0.7, "margin": 0.1, "shift": 1.0}
  config.ucch.update(contrast_share=0.3, memory_momentum=0.4, **options)
  memory = None
  for epoch, (rows, outputs, metrics, state) in enumerate(
    epochs_of(context, ucch_stage.STAGE, config, "ucch", size=size)
  ):
    u, v = (unit(np.tanh(h)) for h in outputs)
    ranking = ranking_loss(u, v, margin=0.1, shift=1.0, rows=rows)
    np.testing.assert_allclose(metrics["ranking"], ranking, rtol=1e-3)
    if epoch == 0:
      codes = np.where(u + v >= 0, 1.0, -1.0)
      itself = rows[:, None] == rows
      contrast = sum(
        memory_contrast(x, codes, codes, temperature=0.7, left_out=itself) for x in (u, v)
      )
      np.testing.assert_allclose(metrics["contrast"], contrast, rtol=1e-3)
      kept = unit(u + v)
    else:
      kept = unit(0.4 * memory[rows] + 0.6 * unit(u + v))
    memory = state["memory"]
    np.testing.assert_allclose(memory[rows], kept, atol=1e-4)
    expected = 0.3 * metrics["contrast"] + 0.7 * metrics["ranking"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-3)


def test_ucch_knows_its_first_epoch_after_any_number_of_rows(context):
  config = ucch.default_config("features", path="")
  config.update(bits=BITS)
  config.ucch.update(batch_size=PAIRS, epochs=3, hidden=7, dropout=0.0, memory_momentum=1.0)
  work = ucch_stage.STAGE.build(context, select(config, ucch_stage.STAGE.fields), {})
  before = np.asarray(work.state["memory"])
  state = work.state | {"step": jnp.int32(2**31 // PAIRS + 1)}
  state, _ = work.step(state, next(work.batches(0)))
  np.testing.assert_allclose(state["memory"], unit(before), atol=1e-6)


def test_of_copies_in_a_batch_the_last_is_written(rng):
  for _ in range(20):
    rows = rng.integers(-1, 9, 12).astype(np.int32)
    expected, last = np.full(12, 99), {row: place for place, row in enumerate(rows)}
    for row, place in last.items():
      expected[place] = row if row >= 0 else 99
    found = jax.jit(ucch_stage.written_places, static_argnums=1)(rows, 99)
    np.testing.assert_array_equal(found, expected)


def test_the_similarity_is_of_the_teachers_codes_in_its_last_epoch(context):
  assert [float(sharpness(epoch)) for epoch in (0, 3, 8)] == [1, 2, 3]
  config = dudch.default_config("features", path="")
  config.update(bits=BITS)
  config.djsrh.update(batch_size=PAIRS, epochs=9, hidden=7)
  own = select(config, djsrh.STAGE.fields)
  work = djsrh.djsrh(context, own, {}, bits=BITS)
  teacher = work.finish(work.state)
  made = similarity.similarity(
    context, select(config, similarity.STAGE.fields), {"teacher": teacher}
  )
  state = made.state
  for batch in made.batches(0):
    state, _ = made.step(state, batch)
  found = made.finish(state)
  module = pair_module(facts(teacher), "float32")
  outputs = module.apply(teacher["variables"], context.dataset.images, context.dataset.texts)
  for side, h in zip(("images", "texts"), outputs, strict=True):
    np.testing.assert_allclose(found[side][: PAIRS + 2], unit(np.tanh(3 * h)), atol=1e-5)


def test_columns_are_brought_to_mean_0_and_variance_1(rng, monkeypatch):
  monkeypatch.setattr(pair_network, "_BLOCK", 7)
  array = (rng.normal(size=(50, 4)) * [1, 5, 0.1, 0] + [3, 0, 7, 2]).astype(np.float32)
  rows = np.arange(5, 45)
  found = pair_network.column_scaling(array, rows)
  scaled = (array[rows] - found["mean"]) * found["scale"]
  np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 1, 0], atol=1e-3)


def test_directions_hold_most_of_the_square_lengths(rng, monkeypatch):
  monkeypatch.setattr(pair_network, "_BLOCK", 7)
  array = (rng.normal(size=(50, 6)) * [1, 9, 2, 5, 1, 3] + 1).astype(np.float32)
  rows = np.arange(5, 45)
  found = pair_network.principal_directions(array, rows, 2)
  expected = np.linalg.svd(array[rows], full_matrices=False)[2][:2]
  np.testing.assert_allclose(found @ found.T, expected.T @ expected, atol=1e-4)


def test_directions_that_few_rows_say_nothing_of_are_left_out(rng):
  """Rows that were not trained on have lengths there, which rounding would be divided by."""
  array = np.maximum(rng.normal(size=(300, 60)), 0).astype(np.float32)
  rows = np.arange(20)
  turn = pair_network.principal_directions(array, rows, 30)
  scaling = pair_network.column_scaling(array[rows] @ turn, rows)
  inputs = (array @ turn - scaling["mean"]) * scaling["scale"]
  assert (scaling["scale"] > 0).sum() == 20
  assert np.abs(inputs[20:]).max() < 30


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize(
  ("stage", "method", "section", "options"),
  [
    (djsrh.STAGE, djsrh_method, "djsrh", {"bits": BITS}),
    (pair_contrast_stage.STAGE, pair_contrast, "contrast", {}),
    (ucch_stage.STAGE, ucch, "ucch", {}),
    (student.STAGE, dudch, "student", {}),
  ],
)
def test_pictures_are_not_read_where_their_features_are(
  context, monkeypatch, stage, method, section, options, reads
):
  for module in (pair_network, ucch_stage, student):
    monkeypatch.setattr(module, "reads_features", lambda network: reads)
  config = method.default_config("features", path="")
  config.update(bits=BITS)
  config[section].update(batch_size=PAIRS, epochs=1, hidden=7)
  factors = {
    side: mesh_lib.replicate(context.mesh, np.ones((PAIRS + 2, 8), np.float32))
    for side in ("images", "texts")
  }
  inputs = {"features": {}, "similarity": factors}
  work = stage.build(context, select(config, stage.fields), inputs, **options)
  batch = next(work.batches(0))
  batch = batch[1] if isinstance(batch, tuple) else batch  # whose turn it is comes first
  assert ("image" in batch) == (not reads) and "text" in batch


@pytest.mark.parametrize("widest", [4, 5])
def test_a_run_says_where_features_are_too_wide_for_directions(
  context, monkeypatch, capsys, widest
):
  monkeypatch.setattr(pair_network, "_WIDEST", widest)
  config = djsrh_method.default_config("features")
  config.djsrh.update(hidden=7, directions=2)
  made = pair_network.new_pair_network(context, config, config.djsrh, {}, bits=BITS)
  assert facts(made.stored)["directions"] == (2 if widest == 5 else 0)
  said = "[images] 5 features, more than 4: all are read, and not their 2 principal directions"
  assert (said in capsys.readouterr().out) == (widest == 4)


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_each_part_has_a_rate_of_its_own(decay):
  rates = {"backbone": 1e-3, "image_layers": 1e-2, "text_layers": 0.1}
  settings = {name.removesuffix("_layers") + "_learning_rate": r for name, r in rates.items()}
  settings |= {"optimizer": "sgd", "momentum": 0.5, "weight_decay": 0.2, "decay": decay}
  optimizer = pair_network.pair_optimizer(ConfigDict(settings), 4)
  parameters = dict.fromkeys(rates, np.float32(3))
  state = optimizer.init(parameters)
  expected, speed = dict.fromkeys(rates, 3.0), dict.fromkeys(rates, 0.0)
  for step in range(4):
    updates, state = optimizer.update(dict.fromkeys(rates, np.float32(1)), state, parameters)
    parameters = {name: parameters[name] + updates[name] for name in rates}
    share = (1 + np.cos(np.pi * step / 4)) / 2 if decay == "cosine" else 1
    for name, rate in rates.items():
      speed[name] = 0.5 * speed[name] + 1 + 0.2 * expected[name]
      expected[name] -= rate * share * speed[name]
      np.testing.assert_allclose(parameters[name], expected[name], rtol=1e-5)
