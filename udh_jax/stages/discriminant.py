"""Features and clusterings in, the directions that suit the collection out."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.coding.discriminant import discriminant_directions, discriminant_itq
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import baselines
from udh_jax.stages.guard import (
  BORNE,
  agreements,
  keeps_the_nearest,
  mean_ratios,
  nearest_agreements,
)
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.partitions import MADE_FROM, sizes

# Which clusterings of `MADE_FROM`, and how much more a direction counts that tells them apart: from
# codes that keep the nearest apart to codes that gather whole clusters.
CANDIDATES = ((0, 0.25), (1, 0.25), (2, 0.5), (2, 1.0))
LENGTHS = (16, 32, 64)  # of the codes that candidates are compared by


def words(candidate: int, num_train: int) -> str:
  """One of `CANDIDATES` in words."""
  number, power = CANDIDATES[candidate]
  return f"{sizes(num_train, MADE_FROM)[number][0]} clusters, power {power:g}"


@functools.cache
def _directions(mesh: Mesh, num_clusters: int) -> Callable[..., LinearHash]:
  """`discriminant_directions` on the rows of all devices; one program serves all powers."""
  options = {"num_clusters": num_clusters, "axis_name": mesh_lib.DATA_AXIS}

  def function(features, labels, weights, power):
    return discriminant_directions(features, labels, power=power, weights=weights, **options)

  return mesh_lib.on_rows(mesh, function, rows=3, whole=1)


@functools.cache
def _turned(mesh: Mesh, bits: int) -> Callable[..., LinearHash]:
  """`discriminant_itq` on the rows of all devices; one program serves all it is called for."""

  def function(features, weights, directions, key, flatness):
    options = {"key": key, "flatness": flatness, "weights": weights}
    return discriminant_itq(features, directions, bits, **options, axis_name=mesh_lib.DATA_AXIS)

  return mesh_lib.on_rows(mesh, function, rows=2, whole=3)


def itq_on_directions(
  context: Context, features: jax.Array, bits: int, seed: int, *, flatness: float = 0.0
) -> Callable[[LinearHash], LinearHash]:
  """`discriminant_itq` on the training rows of all devices: from directions to a hash function."""
  turned, weights = _turned(context.mesh, bits), train_weights(context)
  return lambda directions: turned(features, weights, directions, jax.random.key(seed), flatness)


def best_candidate(agreement: np.ndarray, nearest: np.ndarray) -> int:
  """Which of `CANDIDATES` suits a collection, told without labels.

  Args:
    agreement: From `agreements`, the mean over the queries. Array of shape ``[lengths, candidates +
      1, sizes]``, the last candidate ITQ.
    nearest: From `nearest_agreements`. Array of shape ``[lengths, candidates + 1]``.

  Returns:
    Of the candidates that `keeps_the_nearest` lets pass, the finest that the ranking bears: the
    first whose agreement, at the number of clusters where it exceeds ITQ's by least, is at most
    `BORNE` below that of the best. Both are in parts of ITQ's, in the mean over the lengths. Where
    none passes, the one that keeps most of the nearest.

  References:
    Our own rule; docs/results.md tells how it was found and tried.
  """
  least = mean_ratios(agreement)[:-1].min(axis=1)
  kept = mean_ratios(np.asarray(nearest)[..., None])[:-1, 0]
  passes = keeps_the_nearest(kept, least)
  if not passes.any():
    return int(kept.argmax())
  return int(np.flatnonzero(passes & (least >= least[passes].max() - BORNE))[0])


def discriminant(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Finds `discriminant_directions` of fine and coarse clusterings and keeps those that suit best.

  Kept are those whose codes of `LENGTHS` agree best with clusterings of another view, on images
  held out of the training: the `best_candidate`.

  Inputs: ``features`` and ``partitions``.

  Outputs: ``mean`` ``[d]`` and ``projection`` ``[d, d]`` of the kept ones, ``chosen``, a number of
  `CANDIDATES`; and, the last row ITQ's, ``agreement`` float32 ``[lengths, candidates + 1, sizes]``
  and ``nearest`` float32 ``[lengths, candidates + 1]``.

  References:
    Our own; docs/results.md tells how the candidates were found.
  """
  features = baselines.centred_features(inputs["features"])
  made_from = sizes(len(context.dataset.splits.train), MADE_FROM)
  lengths = [bits for bits in LENGTHS if bits <= features.shape[1]] or [features.shape[1]]

  def directions_of(number, power):
    labels = inputs["partitions"]["made_from"][str(number)]
    found = _directions(context.mesh, made_from[number][0])
    return found(features, labels, train_weights(context), power)

  def finish(state):
    del state
    candidates = [directions_of(*candidate) for candidate in CANDIDATES]
    found, nearest = [], []
    for bits in lengths:
      turned = itq_on_directions(context, features, bits, config.seed)
      functions = [turned(directions) for directions in candidates]
      functions.append(baselines.fit(context, "itq", features, bits, config.seed))
      codes = [baselines.packed_codes(function, features) for function in functions]
      of_length = agreements(context, inputs["partitions"], codes)
      found.append(of_length.mean(axis=2))
      nearest.append(nearest_agreements(context, inputs["partitions"], codes))
    agreement = np.array(found, np.float32)
    chosen = mesh_lib.agreed(best_candidate(agreement, np.array(nearest)))
    told = {
      "agreement": jnp.asarray(agreement),
      "nearest": jnp.asarray(nearest, jnp.float32),
      "chosen": jnp.int32(chosen),
    }
    return {**candidates[chosen]._asdict(), **mesh_lib.replicate(context.mesh, told)}

  return Work(finish=finish)


# Version 2: where no image is held out, none is its own neighbour.
# Version 3: agreement does not depend on the order of the images.
# Version 4: the nearest are not to be lost, and the finest candidate that is as good is kept.
# Version 5: directions that no cluster differs in are ordered by their variance; what the ranking
# gains makes good for what the nearest lose.
STAGE = Stage("discriminant", discriminant, ("seed",), version=5)
