"""Features and directions in, the hash function that a hash layer starts at out."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import centred_features, packed_codes
from udh_jax.stages.discriminant import itq_on_directions
from udh_jax.stages.guard import (
  BORNE,
  agreements,
  held_out_rows,
  keeps_the_nearest,
  nearest_agreements,
  over_itq,
)

FLATNESSES = (0.0, 0.1, 0.25, 0.35)  # see `flatness_that_suits`
FEWEST_QUERIES = 200  # below which the ranking is too noisy to act on
NEAREST_OF_FEW = 0.9  # of ITQ's agreement among the nearest is then to be kept


def flatness_that_suits(
  average_precision: np.ndarray, nearest: np.ndarray, num_queries: int
) -> int:
  """How flat the directions of codes of one length are to be.

  Bits that follow the same few directions gather whole clusters: many images have one code, and
  which of them is nearest is lost. Flatter directions tell more of them apart.

  Args:
    average_precision: Agreement of the codes of each of `FLATNESSES`, and of ITQ's last. Array of
      shape ``[F + 1, sizes of clusters]``.
    nearest: From `nearest_agreements`, of the same codes. Array of shape ``[F + 1]``.
    num_queries: Of the comparison, held out of the training.

  Returns:
    A number of `FLATNESSES`, the greater of two. As flat as the ranking bears: the last but one, or
    one before it, whose agreement, in parts of ITQ's and in the mean over the numbers of clusters,
    is at most `BORNE` below that of the first; 0 with fewer than `FEWEST_QUERIES`. And as flat as
    the nearest need: the first that `keeps_the_nearest` lets pass; with fewer queries the first
    that keeps `NEAREST_OF_FEW` of ITQ's; or else the one that keeps most.

  References:
    Our own rule; docs/results.md has what it chooses and what that gains.
  """
  few = num_queries < FEWEST_QUERIES
  kept = over_itq(np.asarray(nearest)[:, None])[:-1, 0]
  ranking = over_itq(average_precision)[:-1].mean(axis=1)
  enough = kept >= NEAREST_OF_FEW if few else keeps_the_nearest(kept, ranking)
  needed = int(np.argmax(enough if enough.any() else kept))
  borne = 0 if few else int(np.flatnonzero(ranking[:-1] >= ranking[0] - BORNE)[-1])
  return max(needed, borne)


def start(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Turns the directions of `udh_jax.stages.discriminant` by ITQ, flattened where that suits.

  Inputs: ``features``, ``discriminant``, ``partitions``, and ``baselines``, whose ITQ is what codes
  are compared with on images held out of the training.

  Outputs: ``codes`` uint8 ``[rows, ceil(bits / 8)]``; ``function``, the fields of its `LinearHash`;
  ``chosen``, a number of `FLATNESSES`; and, the last row ITQ's, ``agreement`` float32
  ``[flatnesses + 1, sizes]`` and ``nearest`` float32 ``[flatnesses + 1]``.
  """
  features = centred_features(inputs["features"])
  found = inputs["discriminant"]
  directions = LinearHash(found["mean"], found["projection"])

  def finish(state):
    del state
    functions = [
      itq_on_directions(context, features, config.bits, config.seed, flatness=flatness)(directions)
      for flatness in FLATNESSES
    ]
    codes = [packed_codes(function, features) for function in functions]
    compared = context, inputs["partitions"], [*codes, inputs["baselines"]["itq"]]
    found, nearest = agreements(*compared), nearest_agreements(*compared)
    agreement = found.mean(axis=2)
    num_queries = min(found.shape[-1], len(held_out_rows(context.dataset.splits)))
    chosen = mesh_lib.agreed(flatness_that_suits(agreement, nearest, num_queries))
    told = {
      "chosen": jnp.int32(chosen),
      "agreement": jnp.asarray(agreement, jnp.float32),
      "nearest": jnp.asarray(nearest, jnp.float32),
    }
    return {
      "codes": codes[chosen],
      "function": functions[chosen]._asdict(),
      **mesh_lib.replicate(context.mesh, told),
    }

  return Work(finish=finish, row_outputs=("codes",))


# Version 4: directions are flattened as far as the ranking bears, in large collections alone.
# Version 5: and only where images are held out of the training.
# Version 6: and further where the nearest would be lost, in small collections too.
# Version 7: by many queries the ranking's gain makes good for what the nearest lose.
STAGE = Stage("start", start, ("bits", "seed"), version=7)
