"""A network that is adapted: half what its training on pseudo labels made, half what it was."""

import jax
import numpy as np
import pytest
from by_hand import PLAIN, finished, teacher_of

from udh_jax.configuration import select
from udh_jax.methods import automatic, udh_ecc
from udh_jax.runtime.stage import Stage, Work
from udh_jax.sharding import split_rows
from udh_jax.stages import adapt, finetune
from udh_jax.stages.network import backbone_variables, facts


def setting(context, *, share):
  config = udh_ecc.default_config("folder")
  automatic.on_any_pictures(config)
  config = automatic.provisional(config)
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.cluster.update(num_clusters=4, num_clusterings=2)
  same = {"steps": 3, "batch_size": 12, "augment": PLAIN, "trained": "all"}
  config.adapt.update(share=share, invariance=1.0, **same)
  config.finetune.update(learning_rate=config.adapt.learning_rate, **same)
  config.finetune.head_learning_rate = config.adapt.head_learning_rate
  rng = np.random.default_rng(3)
  clustering = {
    "labels": split_rows(context.mesh, rng.integers(0, 4, (100, 2)).astype(np.int32)),
    "distances": split_rows(context.mesh, rng.random((100, 2)).astype(np.float32)),
    "threshold": np.ones(2, np.float32),
  }
  seen = rng.normal(size=(100, 4, 6)).astype(np.float16)
  seen[:, -1] = seen[:, 1] + 0.5 * seen[:, -1] + 3
  inputs = {"teacher": teacher_of(context), "clustering": clustering}
  return config, inputs | {"views": {"views": split_rows(context.mesh, seen)}}


def alike(context, inputs):
  """The mean cosine of both views, written out."""
  seen = np.asarray(inputs["views"]["views"], np.float64)[:100]
  train = context.dataset.splits.train
  first, second = (rows - rows[train].mean(axis=0) for rows in (seen[:, 1], seen[:, -1]))
  lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
  return ((first * second).sum(axis=1) / lengths)[train].mean()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_are_the_mean_of_before_and_after(context, share, capsys):
  config, inputs = setting(context, share=share)
  made = finished(adapt.STAGE.build(context, select(config, adapt.STAGE.fields), inputs))
  own = select(config, finetune.STAGE.fields)
  of_pictures = {role: inputs[role] for role in ("teacher", "clustering")}
  trained = finished(finetune.STAGE.build(context, own, of_pictures, seed_offset=1))
  before, after = backbone_variables(inputs["teacher"]), backbone_variables(trained)
  assert jax.tree.structure(made["variables"]) == jax.tree.structure(before)
  moved = 0.0
  for found, b, a in zip(*map(jax.tree.leaves, (made["variables"], before, after)), strict=True):
    np.testing.assert_allclose(found, (1 - share) * b + share * a, atol=1e-6)
    moved += float(np.abs(a - b).sum())
  assert moved > 0 and facts(made) == facts(inputs["teacher"])
  assert adapt.was_adapted(made)
  np.testing.assert_allclose(made["invariance"], alike(context, inputs), rtol=1e-3)
  said = capsys.readouterr().out
  assert f"alike by {alike(context, inputs):.2f}" in said and ", below 1: it is adapted" in said


def test_a_network_that_knows_the_pictures_is_left_alone(context, capsys):
  config, inputs = setting(context, share=0.5)
  limit = alike(context, inputs)
  assert 0.7 < limit < 0.98
  config.adapt.invariance = limit - 0.01
  work = adapt.STAGE.build(context, select(config, adapt.STAGE.fields), inputs)
  made = finished(work)
  assert work.num_steps == 0 and not adapt.was_adapted(made)
  jax.tree.map(
    np.testing.assert_array_equal, made["variables"], backbone_variables(inputs["teacher"])
  )
  assert "it knows such pictures" in capsys.readouterr().out


@pytest.mark.parametrize("adapted", [0, 1])
@pytest.mark.parametrize("before", [None, "first"])
def test_what_was_made_on_the_network_stays_where_it_does(context, adapted, before):
  def build(context, config, inputs):
    assert inputs.keys() == {"teacher"}
    return Work(finish=lambda state: {"rows": "new", "fact": 1}, row_outputs=("rows",))

  stage = adapt.on_adapted(Stage("second", build, ()).named("second", teacher="t"), "adapt", before)
  assert stage.inputs == {"teacher": "t", "adapted": "adapt"} | (
    {"before": "first"} if before else {}
  )
  inputs = {"teacher": {}, "adapted": {"adapted": np.int32(adapted)}}
  if before:
    inputs["before"] = {"rows": "old", "fact": 0}
  work = stage.build(context, None, inputs)
  found = inputs.get("before", {"adapted": 0})
  found = {"rows": "new", "fact": 1} if adapted else found
  assert work.finish({}) == found and work.row_outputs == (("rows",) if "rows" in found else ())


@pytest.mark.parametrize(
  ("found", "said"),
  [
    (0.6399999, "alike by 0.639, below 0.64: it is adapted"),
    (0.64, "alike by 0.64, not below 0.64"),
  ],
)
def test_what_is_below_the_limit_is_not_shown_as_the_limit(found, said):
  assert said in adapt.in_words(found, 0.64)
