"""Features and clusterings in, the directions that suit the collection out."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.coding.discriminant import discriminant_directions, discriminant_itq
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import baselines
from udh_jax.stages.guard import agreements, mean_ratios
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


def itq_on_directions(
  context: Context, features: jax.Array, bits: int, seed: int, *, flatness: float = 0.0
) -> Callable[[LinearHash], LinearHash]:
  """`discriminant_itq` on the training rows of all devices: from directions to a hash function.

  One program serves all directions.
  """
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  function = functools.partial(
    discriminant_itq, num_bits=bits, flatness=flatness, axis_name=mesh_lib.DATA_AXIS
  )
  mapped = jax.shard_map(
    lambda features, weights, directions, key: function(
      features, directions, weights=weights, key=key
    ),
    mesh=context.mesh,
    in_specs=(rows, rows, whole, whole),
    out_specs=whole,
  )
  turned, weights = jax.jit(mapped), train_weights(context)
  return lambda directions: turned(features, weights, directions, jax.random.key(seed))


def discriminant(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Finds `discriminant_directions` of fine and coarse clusterings and keeps those that suit best.

  Kept are those whose codes agree with clusterings of another view, on images held out of the
  training, by most more than ITQ's where they do so least: of the ratios to ITQ's agreement, the
  mean over `LENGTHS` for each number of clusters, the smallest counts.

  Inputs: ``features`` and ``partitions``.

  Outputs: ``mean`` ``[d]`` and ``projection`` ``[d, d]`` of the kept ones, ``chosen``, a number of
  `CANDIDATES`, and ``agreement`` float32 ``[lengths, candidates + 1, sizes]``, the last row ITQ's.

  References:
    Our own; docs/results.md tells how the candidates were found.
  """
  features = baselines.centred_features(inputs["features"])
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  made_from = sizes(len(context.dataset.splits.train), MADE_FROM)
  lengths = [bits for bits in LENGTHS if bits <= features.shape[1]] or [features.shape[1]]

  def directions_of(number, power):
    function = functools.partial(
      discriminant_directions,
      num_clusters=made_from[number][0],
      power=power,
      axis_name=mesh_lib.DATA_AXIS,
    )
    mapped = jax.shard_map(
      lambda features, labels, weights: function(features, labels, weights=weights),
      mesh=context.mesh,
      in_specs=(rows, rows, rows),
      out_specs=whole,
    )
    labels = inputs["partitions"]["made_from"][str(number)]
    return jax.jit(mapped)(features, labels, train_weights(context))

  def finish(state):
    del state
    candidates = [directions_of(*candidate) for candidate in CANDIDATES]
    found = []
    for bits in lengths:
      turned = itq_on_directions(context, features, bits, config.seed)
      functions = [turned(directions) for directions in candidates]
      functions.append(baselines.fit(context, "itq", features, bits, config.seed))
      codes = [baselines.packed_codes(function, features) for function in functions]
      of_length = agreements(context, inputs["partitions"], codes)
      found.append(of_length.mean(axis=2))
    agreement = jnp.asarray(found, jnp.float32)
    chosen = mesh_lib.agreed(int(mean_ratios(agreement)[:-1].min(axis=1).argmax()))
    return {
      **candidates[chosen]._asdict(),
      "agreement": mesh_lib.replicate(context.mesh, agreement),
      "chosen": mesh_lib.replicate(context.mesh, jnp.int32(chosen)),
    }

  return Work(finish=finish)


# Version 2: where no image is held out, none is its own neighbour.
# Version 3: agreement does not depend on the order of the images.
STAGE = Stage("discriminant", discriminant, ("seed",), version=3)
