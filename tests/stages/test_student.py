"""The student's stage, step by step, against its objective written out."""

import dataclasses

import jax
import numpy as np
from asymmetric_oracle import SHARES, dense_objective, made_pairs

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.encoders.pair import pair_module
from udh_jax.methods import dudch
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.stages import student
from udh_jax.stages.network import facts


def test_networks_and_codes_improve_one_objective(rng):
  factors, weights, *_ = made_pairs(rng)
  config = dudch.default_config("wikipedia", path="")
  config.update(bits=6, similarity=SHARES)
  config.student.update(
    rounds=1, sampled_pairs=5, batch_size=3, hidden=7, sweeps=2, quantisation_weight=0.4
  )
  config = select(config, student.STAGE.fields)
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
  work = student.student(Context(mesh, dataset), config, {"similarity": factors})
  network = work.finish(work.state)
  assert network["learned_codes"].shape[1] == 1 and work.row_outputs == ("learned_codes",)
  some = dataclasses.replace(dataset, splits=dataset.splits._replace(train=train[:-1]))
  of_some = student.student(Context(mesh, some), config, {"similarity": factors})
  assert "learned_codes" not in of_some.finish(of_some.state) and of_some.row_outputs == ()
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
