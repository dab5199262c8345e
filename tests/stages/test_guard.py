"""Views, clusterings, the start that they choose, and the guard, on rows made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import context_of

from udh_jax.coding.baselines import LinearHash
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.coding.discriminant import discriminant_directions, discriminant_itq
from udh_jax.methods import udh_ecc
from udh_jax.retrieval.agreement import agreement, nearest_agreement
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.sharding import split_rows
from udh_jax.stages import baselines, discriminant, guard, partitions, start, views
from udh_jax.stages.features import centred_rows
from udh_jax.stages.guard import (
  agreements,
  best_row,
  compared_rows,
  itq_suits,
  nearest_agreements,
  over_itq,
)
from udh_jax.stages.training import random_view

ROWS, WIDTH, BITS = 164, 24, 8


@pytest.fixture(scope="module", params=[1, 8])
def context(request):
  return context_of(request.param, size=ROWS, train=np.arange(0, ROWS, 2))


@pytest.fixture(scope="module")
def config():
  config = udh_ecc.default_config("folder")
  config.bits = BITS
  return config


@pytest.fixture(scope="module")
def made(context, config):
  """Features of four classes in noise, their views, and what the stages make of them."""
  rng = np.random.default_rng(2)
  centres = 3 * rng.normal(size=(4, WIDTH))
  own = centres[np.arange(ROWS) // 2 % 4] + 2 + rng.normal(size=(ROWS, WIDTH))
  seen = own[:, None] + 0.3 * rng.normal(size=(ROWS, 3, WIDTH))
  seen[:, 0] = own
  features, length, centre = centred_rows(context, split_rows(context.mesh, own.astype(np.float32)))
  inputs = {
    "features": {"features": features, "length": length, "centre": centre},
    "views": {"views": split_rows(context.mesh, seen.astype(np.float16))},
  }
  for stage in (partitions, baselines, discriminant, start):
    inputs[stage.STAGE.name] = stage.STAGE.build(context, config, inputs).finish({})
  return inputs


def test_clusterings_are_of_training_rows_and_held_to_ones_of_all(context, made):
  train = np.isin(np.arange(ROWS), context.dataset.splits.train)
  for number, (k, times) in enumerate(partitions.sizes(train.sum(), partitions.MADE_FROM)):
    found = mesh_lib.to_host(made["partitions"]["made_from"][str(number)], ROWS)
    assert found.shape == (ROWS, times) and found.max() < k
    assert (found[train] >= 0).all() and (found[~train] == -1).all()
  view_of = dict(made["partitions"]["held_to"]) | {"near": made["partitions"]["near_to"]}
  wanted = partitions.sizes(train.sum(), (*partitions.HELD_TO, partitions.NEAR_TO))
  for found, (k, times) in zip(view_of.values(), wanted, strict=True):
    found = mesh_lib.to_host(found, ROWS)
    assert found.shape == (ROWS, times) and found.min() >= 0 and found.max() < k


def test_sizes_leave_four_images_a_cluster_and_never_none():
  assert partitions.sizes(1, ((100, 3), (20, 5))) == ((1, 3), (1, 5))
  assert partitions.sizes(100, ((100, 3), (20, 5))) == ((25, 3), (20, 5))


def test_the_directions_gain_most_where_they_gain_least(context, made):
  found, chosen = np.asarray(made["discriminant"]["agreement"]), int(made["discriminant"]["chosen"])
  lengths = [bits for bits in discriminant.LENGTHS if bits <= WIDTH]
  sizes = (len(discriminant.CANDIDATES) + 1, len(partitions.HELD_TO))
  assert found.shape == (len(lengths), *sizes)
  nearest = np.asarray(made["discriminant"]["nearest"])
  assert nearest.shape == (len(lengths), sizes[0])
  assert chosen == discriminant.best_candidate(found, nearest)
  directions = [np.asarray(made["discriminant"][name]) for name in ("mean", "projection")]
  assert [array.shape for array in directions] == [(WIDTH,), (WIDTH, WIDTH)]


def test_the_finest_directions_that_the_ranking_bears_and_that_keep_the_nearest():
  itq = np.array([0.5, 0.25])
  by_size = np.array([itq * (1.4, 1.1), itq * 1.2, itq * (1.5, 1.3), itq * 1.05, itq])

  def with_nearest(*kept):
    nearest = np.array([[0.4 * share for share in kept] + [0.4], [0.2 * s for s in kept] + [0.2]])
    return discriminant.best_candidate(np.stack([by_size, 0.5 * by_size]), nearest)

  # What they keep times 1.1, 1.2, 1.3 and 1.05, their least gains, is to be .95.
  assert with_nearest(1, 1, 1, 1) == with_nearest(1, 1, 0.74, 1) == 2
  assert with_nearest(1, 0.8, 0.72, 1) == 1
  assert with_nearest(0.9, 0.78, 0.72, 0.89) == 0
  assert with_nearest(0.7, 0.78, 0.6, 0.5) == 1  # none keeps so much: the one that keeps most
  assert with_nearest(0, 0, 0, 0) == 0
  # The finest of those at most .02 below the best where they gain least.
  for least, expected in (((1.09, 1.1, 1.0, 1.2), 3), ((1.09, 1.11, 1.1, 1.0), 0)):
    ranking = np.array([itq * (value, 2) for value in least] + [itq])[None]
    assert discriminant.best_candidate(ranking, np.ones((1, 5))) == expected
  ranking = np.array([itq * (value, 2) for value in (1.09, 1.12, 1.1, 1.2)] + [itq])[None]
  assert discriminant.best_candidate(ranking, np.array([[1, 1, 1, 0.79, 1]])) == 1
  ranking = np.array([itq * (value, 2) for value in (1.2, 1.19, 1.0, 1.0)] + [itq])[None]
  assert discriminant.best_candidate(ranking, np.array([[0.79, 1, 1, 1, 1]])) == 1
  # In the mean over the lengths: .5 and .97 are enough.
  nearest = np.array([[0.4, 0.4, 0.2, 0.4, 0.4], [0.2, 0.2, 0.194, 0.2, 0.2]])
  assert discriminant.best_candidate(np.stack([by_size, by_size]), nearest) == 2


def test_the_nearest_agree_with_finer_clusters(context, made):
  codes, train = np.asarray(made["start"]["codes"]), context.dataset.splits.train
  (found,) = nearest_agreements(context, made["partitions"], [made["start"]["codes"]])
  clusters = np.asarray(made["partitions"]["near_to"])
  other = np.setdiff1d(np.arange(ROWS), train)
  expected = nearest_agreement(codes[other], codes[train], clusters[other], clusters[train])
  np.testing.assert_allclose(found, expected)


def test_agreement_is_of_held_out_rows_with_training_rows(context, made):
  found = agreements(context, made["partitions"], [made["start"]["codes"]])
  codes, train = np.asarray(made["start"]["codes"]), context.dataset.splits.train
  assert found.shape[:2] == (1, len(partitions.HELD_TO))
  for number in range(len(partitions.HELD_TO)):
    clusters = np.asarray(made["partitions"]["held_to"][str(number)])
    other = np.setdiff1d(np.arange(ROWS), train)
    expected = agreement(codes[other], codes[train], clusters[other], clusters[train])
    np.testing.assert_allclose(found[0, number], expected)


def test_codes_of_the_start_are_those_of_its_function(made):
  function = made["start"]["function"]
  rows = np.asarray(made["features"]["features"]) * np.asarray(made["features"]["length"])[:, None]
  outputs = (rows - np.asarray(function["mean"])) @ np.asarray(function["projection"])
  clear = (np.abs(outputs) > 1e-3).all(axis=1)
  expected = np.asarray(pack_codes(sign(outputs)))
  assert clear[:ROWS].mean() > 0.9
  np.testing.assert_array_equal(np.asarray(made["start"]["codes"])[clear], expected[clear])


@pytest.mark.parametrize("kept", range(len(start.FLATNESSES)))
def test_the_start_is_as_flat_as_was_chosen(context, config, made, monkeypatch, kept):
  given = []
  monkeypatch.setattr(start, "flatness_that_suits", lambda *scores: given.append(scores) or kept)
  found = start.STAGE.build(context, config, made).finish({})
  assert int(found["chosen"]) == kept
  ((ranking, nearest, queries),) = given
  assert queries == ROWS // 2  # those that were not trained on
  assert ranking.shape == (len(start.FLATNESSES) + 1, len(partitions.HELD_TO))
  np.testing.assert_allclose(found["agreement"], ranking, rtol=1e-6)
  np.testing.assert_allclose(found["nearest"], nearest, rtol=1e-6)
  assert nearest.shape == (len(start.FLATNESSES) + 1,)
  for row, codes in ((kept, found["codes"]), (-1, made["baselines"]["itq"])):
    own = agreements(context, made["partitions"], [codes])
    np.testing.assert_allclose(own[0].mean(axis=1), ranking[row])
    np.testing.assert_allclose(
      nearest_agreements(context, made["partitions"], [codes]), [nearest[row]]
    )
  train, features = context.dataset.splits.train, made["features"]
  rows = np.asarray(features["features"]) * np.asarray(features["length"])[:, None]
  directions = LinearHash(made["discriminant"]["mean"], made["discriminant"]["projection"])
  expected = discriminant_itq(
    rows[train], directions, BITS, key=jax.random.key(0), flatness=start.FLATNESSES[kept]
  )
  ours, theirs = (
    np.asarray(v) @ np.asarray(v).T for v in (found["function"]["projection"], expected.projection)
  )
  np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=1e-3 * abs(theirs).max())


def test_training_images_do_not_count_as_held_out(context, config, made, monkeypatch):
  given = []
  monkeypatch.setattr(start, "flatness_that_suits", lambda *scores: given.append(scores) or 0)
  all_trained = context_of(context.mesh.size, size=ROWS, train=np.arange(ROWS))
  assert len(compared_rows(all_trained)[0]) == ROWS // 2
  start.STAGE.build(all_trained, config, made).finish({})
  assert [queries for *_, queries in given] == [0]


def test_directions_are_as_flat_as_the_ranking_bears():
  itq = (0.5, 0.4)

  def chosen(*ranking, queries=start.FEWEST_QUERIES):
    all_near = np.ones(len(start.FLATNESSES) + 1)
    return start.flatness_that_suits(np.array([*ranking, best, itq]), all_near, queries)

  best = (1.0, 1.0)  # of the last, which is there for the nearest alone
  better, worse = (0.6, 0.5), (0.4, 0.3)
  assert chosen(itq, itq, itq) == chosen(worse, itq, better) == 2
  assert chosen(better, itq, itq) == chosen(itq, worse, worse) == 0
  assert chosen(itq, better, worse) == 1
  assert chosen(itq, worse, better) == 2  # what lies between does not count
  # In parts of ITQ's and in the mean over the numbers of clusters it may fall by .02.
  assert chosen(itq, itq, (0.5, 0.385)) == chosen(better, better, (0.5 * 1.181, 0.5)) == 2
  assert chosen(itq, itq, (0.5, 0.383)) == 1
  assert chosen(itq, (0.6, 0.4), (0.5, 0.385)) == 2  # below the first, not below the best
  assert chosen(itq, itq, itq, queries=start.FEWEST_QUERIES - 1) == 0


@pytest.mark.parametrize(
  ("nearest", "expected"),
  [
    ((0.01, -0.05, -0.05, -0.05), 0),
    ((-0.01, 0.001, 0.04, 0.04), 1),
    ((-0.05, -0.03, -0.01, 0.01), 3),
    ((-0.05, -0.03, -0.01, -0.02), 2),  # none keeps enough: the one that keeps most
  ],
)
@pytest.mark.parametrize("itq", [1.0, 0.2])
def test_directions_are_as_flat_as_the_nearest_need(nearest, expected, itq):
  level = np.full((5, 1), 0.5)
  for queries, enough in ((199, 0.9), (200, 0.95)):
    kept = np.array([*(enough + np.array(nearest)), 1.0]) * itq
    # The ranking bears none of them; by many queries its gains and losses count for the nearest.
    falling = np.array([[0.49], [0.45], [0.4], [0.3], [0.5]])
    gained = over_itq(falling)[:, 0] if queries == 200 and max(nearest) > 0 else 1
    assert start.flatness_that_suits(falling, kept / gained, queries) == expected
  assert start.flatness_that_suits(level, kept, 200) == max(expected, 2)
  assert start.flatness_that_suits(level, kept * 0, 1) == 0


def test_what_the_ranking_gains_makes_good_for_the_nearest():
  """As on images of CIFAR-10, whose classes the finest clusters cut through."""
  nearest = np.array([0.8, 0.85, 0.9, 0.96, 1.0])
  falling = np.array([[1.2], [1.1], [1.05], [1.0], [1.0]])
  assert start.flatness_that_suits(falling, nearest, 200) == 0
  assert start.flatness_that_suits(np.ones((5, 1)), nearest, 200) == 3
  assert start.flatness_that_suits(falling, nearest, 199) == 2


def hash_network(layer):
  return {"variables": {"params": {"backbone": {}, "hash": layer, "head": {}}}, "about": "about"}


@pytest.mark.parametrize(
  ("learned", "itq", "expected"),
  [("start", "worse", 0), ("constant", "worse", 1), ("start", "better", 2)],
)
def test_the_guard_keeps_one_layer_of_three(context, config, made, learned, itq, expected):
  function = made["start"]["function"]
  kernel = np.asarray(function["projection"])
  offset = np.asarray(made["features"]["centre"]) + np.asarray(function["mean"])
  layer = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(-offset @ kernel)}
  if learned == "constant":
    layer = {"kernel": layer["kernel"] * 0, "bias": layer["bias"] * 0 + 1}
  of_start = {"worse": 0.6, "better": 0.4}[itq]
  compared = np.full((1, 5, 4), of_start)
  compared[:, -1] = 0.5  # ITQ
  discriminant = made["discriminant"] | {"agreement": compared}
  inputs = {**made, "discriminant": discriminant, "network": hash_network(layer)}
  found = guard.STAGE.build(context, config, inputs).finish({})
  rows = np.asarray(found["agreement"])
  assert rows.shape == (3, len(partitions.HELD_TO)) and int(found["chosen"]) == expected
  if learned == "constant":  # the mean with the start is not constant: it was compared
    (of_itq,) = agreements(context, made["partitions"], [made["baselines"]["itq"]])
    np.testing.assert_allclose(rows[2], of_itq.mean(axis=1), rtol=1e-6)
    assert not np.allclose(rows[0], rows[1])
  # The network that is handed on makes the codes that are handed on.
  layer = found["variables"]["params"]["hash"]
  raw = np.asarray(made["views"]["views"][:, 0], np.float32)
  outputs = raw @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
  clear = (np.abs(outputs) > 0.02).all(axis=1)  # views have 11 bits of precision
  codes = np.asarray(pack_codes(sign(outputs)))
  assert clear.mean() > 0.5
  np.testing.assert_array_equal(codes[clear], np.asarray(found["codes"])[clear])
  assert found["variables"]["params"].keys() == {"backbone", "hash", "head"}


def test_a_network_of_its_own_is_compared_and_not_replaced(context, config, made):
  codes = split_rows(context.mesh, np.full((ROWS, 1), 255, np.uint8))
  inputs = {**made, "encoded": {"codes": codes}}
  found = guard.STAGE.build(context, config, inputs).finish({})
  assert found.keys() == {"agreement", "chosen"} and int(found["chosen"]) == 1


@pytest.mark.parametrize(
  ("adapted", "lost", "expected"), [(1, 2.0, 0), (1, -9.0, 2), (0, 2.0, 2), (0, -9.0, 2)]
)
def test_itq_of_the_untouched_network_comes_with_that_network(
  context, config, made, monkeypatch, adapted, lost, expected
):
  monkeypatch.setattr(guard, "LOST", lost)  # as no codes are, or all
  monkeypatch.setattr(guard, "itq_suits", lambda found: True)  # of a network that was not adapted
  layer = {"kernel": jnp.ones((WIDTH, BITS)), "bias": jnp.zeros(BITS)}
  untouched = dict(made["features"]) | {"centre": made["features"]["centre"] + 1}
  teacher = {"variables": {"params": {"conv": jnp.full(3, 7.0)}}, "about": "about"}
  inputs = {**made, "network": hash_network(layer), "teacher": teacher, "untouched": untouched}
  inputs["adapted"] = {"adapted": jnp.int32(adapted)}
  monkeypatch.setattr(guard, "best_row", lambda found: 0)
  found = guard.STAGE.build(context, config, inputs).finish({})
  parameters = found["variables"]["params"]
  assert int(found["chosen"]) == expected
  assert found["variables"]["params"].keys() == {"backbone", "hash", "head"}
  if expected == 0:
    assert parameters["backbone"] == {}
    return
  np.testing.assert_array_equal(parameters["backbone"]["conv"], np.full(3, 7.0))
  np.testing.assert_array_equal(found["codes"], made["baselines"]["itq"])
  features = made["features"]["features"] * made["features"]["length"][:, None]
  raw = np.asarray(features + untouched["centre"])  # what the untouched network makes
  outputs = raw @ np.asarray(parameters["hash"]["kernel"]) + np.asarray(parameters["hash"]["bias"])
  clear = (np.abs(outputs) > 1e-3).all(axis=1)
  assert clear[:ROWS].mean() > 0.5
  codes = np.asarray(pack_codes(sign(outputs)))
  np.testing.assert_array_equal(codes[clear], np.asarray(found["codes"])[clear])


def test_training_that_went_wrong_is_far_below_at_every_number_of_clusters():
  itq = np.array([[0.5, 0.7], [0.3, 0.5]])  # means of .6 and .4
  assert guard.is_far_below(0.84 * itq, itq) and not guard.is_far_below(0.86 * itq, itq)
  assert not guard.is_far_below(np.array([[0.5, 0.5], [0.4, 0.4]]), itq)


def test_rules_by_hand():
  def rows(*means, noise=0.0):
    spread = noise * np.array([-1.0, 1.0, -1.0, 1.0])
    return np.array(
      [
        [[value] * 4 + spread * (number == 0) for value in mean]
        for number, mean in enumerate(means)
      ]
    )

  itq = (0.5, 0.4)
  assert best_row(rows((0.4, 0.5), itq)) == 0  # worse at one number of clusters alone
  assert best_row(rows((0.4, 0.3), itq)) == 1
  assert best_row(rows((0.4, 0.3), (0.6, 0.5), itq)) == 1
  assert best_row(rows(itq, itq)) == 0
  assert best_row(rows((0.4, 0.3), itq, noise=0.19)) == 1  # a standard error of .095
  assert best_row(rows((0.4, 0.3), itq, noise=0.21)) == 0


def test_itq_suits_where_it_is_better_at_every_size_in_the_mean_over_lengths():
  def outputs(*lengths, chosen=0):
    return {"agreement": np.array(lengths), "chosen": np.int32(chosen)}

  itq, better = [0.5, 0.4], [0.6, 0.5]
  assert itq_suits(outputs([[0.4, 0.3], better, itq], [[0.5, 0.3], better, itq]))
  assert not itq_suits(outputs([[0.4, 0.3], better, itq], [[0.7, 0.3], better, itq]))
  assert not itq_suits(outputs([[0.4, 0.3], better, itq], chosen=1))


def test_comparison_is_on_what_was_not_trained_on_if_anything():
  queries, others = compared_rows(context_of(1, size=ROWS, train=np.arange(100)))
  np.testing.assert_array_equal(queries, np.arange(100, ROWS))
  np.testing.assert_array_equal(others, np.arange(100))


@pytest.mark.parametrize("size", [2, 3, ROWS, 3000])
def test_no_image_is_its_own_neighbour_where_all_are_trained_on(size):
  queries, others = compared_rows(context_of(1, size=size, train=np.arange(size)))
  assert len(queries) == min(size // 2, guard.MOST_QUERIES)
  assert sorted([*queries, *others]) == list(range(size))


def test_training_never_sees_the_last_view():
  seen = jnp.broadcast_to(jnp.arange(4, dtype=jnp.float16)[:, None], (6, 4, 2))
  rows = jnp.arange(6)
  found = np.stack([random_view(seen, rows, jax.random.key(i)) for i in range(30)])
  assert set(np.unique(found)) == {0.0, 1.0, 2.0} and found.dtype == np.float32
  np.testing.assert_array_equal(views.kept_view(seen), 3)


def test_another_view_is_never_the_one_that_the_key_draws():
  seen = jnp.broadcast_to(jnp.arange(4, dtype=jnp.float16)[:, None], (6, 4, 2))
  rows, keys = jnp.arange(6), [jax.random.key(i) for i in range(200)]
  first = np.stack([random_view(seen, rows, key) for key in keys])
  second = np.stack([random_view(seen, rows, key, other=True) for key in keys])
  pairs, counts = np.unique(
    np.stack([first, second], -1).reshape(-1, 2), axis=0, return_counts=True
  )
  assert len(pairs) == 6 and (pairs[:, 0] != pairs[:, 1]).all()  # of the three, in both orders
  assert counts.min() > 0.12 * counts.sum()  # each is a sixth


def test_the_learned_layer_is_the_mean_of_the_trained_one_and_its_start(context, config, made):
  rng = np.random.default_rng(3)
  trained = {
    "kernel": rng.normal(size=(WIDTH, BITS)).astype(np.float32),
    "bias": rng.normal(size=BITS).astype(np.float32),
  }
  compared = np.full((1, 5, 4), 0.6)
  compared[:, -1] = 0.5  # ITQ is worse
  inputs = {
    **made,
    "discriminant": made["discriminant"] | {"agreement": compared},
    "network": hash_network(trained),
  }
  found = guard.STAGE.build(context, config, inputs).finish({})
  # The start by hand: outputs have a root mean square of 1 over the training rows.
  function = made["start"]["function"]
  rows = np.asarray(made["features"]["features"]) * np.asarray(made["features"]["length"])[:, None]
  outputs = (rows - np.asarray(function["mean"])) @ np.asarray(function["projection"])
  outputs /= np.sqrt((outputs[context.dataset.splits.train] ** 2).mean())
  raw = rows + np.asarray(made["features"]["centre"])
  outputs = (outputs + raw @ trained["kernel"] + trained["bias"])[:ROWS] / 2
  expected = np.asarray(pack_codes(sign(outputs)))
  agreed = agreements(context, made["partitions"], [split_rows(context.mesh, expected)])
  agreed = agreed[0]
  np.testing.assert_allclose(np.asarray(found["agreement"])[0], agreed.mean(axis=1), atol=0.02)
  if int(found["chosen"]) == 0:
    clear = (np.abs(outputs) > 1e-3).all(axis=1)
    np.testing.assert_array_equal(np.asarray(found["codes"])[:ROWS][clear], expected[clear])


@pytest.mark.parametrize("kept", [1, 3])
def test_what_is_kept_are_the_directions_of_its_clusters_and_power(
  context, config, made, monkeypatch, kept
):
  number, power = discriminant.CANDIDATES[kept]
  monkeypatch.setattr(discriminant, "mean_ratios", lambda found: np.eye(5)[kept][:, None])
  found = discriminant.STAGE.build(context, config, made).finish({})
  assert int(found["chosen"]) == kept
  train, features = context.dataset.splits.train, made["features"]
  rows = np.asarray(features["features"]) * np.asarray(features["length"])[:, None]
  labels = np.asarray(made["partitions"]["made_from"][str(number)])
  count = partitions.sizes(len(train), partitions.MADE_FROM)[number][0]
  expected = discriminant_directions(rows[train], labels[train], num_clusters=count, power=power)
  ours, theirs = (np.asarray(v) @ np.asarray(v).T for v in (found["projection"], expected[1]))
  np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=2e-3 * abs(theirs).max())
