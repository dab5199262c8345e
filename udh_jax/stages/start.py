"""Features and directions in, the hash function that a hash layer starts at out."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import centred_features, packed_codes
from udh_jax.stages.discriminant import itq_on_directions
from udh_jax.stages.guard import BORNE, agreements, held_out_rows, over_itq

FLATNESSES = (0.0, 0.1, 0.25)  # see `flatness_that_suits`
FEWEST_QUERIES = 200  # below which the comparison is too noisy to act on


def flatness_that_suits(average_precision: np.ndarray, num_queries: int) -> int:
  """How flat the directions of codes of one length are to be: as flat as the ranking bears.

  Bits that follow the same few directions gather whole clusters: many images have one code, and
  which of them is nearest is lost. Flatter directions tell more of them apart.

  Args:
    average_precision: Agreement of the codes of each of `FLATNESSES`, and of ITQ's last. Array of
      shape ``[F + 1, sizes of clusters]``.
    num_queries: Of the comparison, held out of the training.

  Returns:
    A number of `FLATNESSES`: the last whose agreement, in parts of ITQ's and in the mean over the
    numbers of clusters, is at most `BORNE` below that of the first. 0 with fewer than
    `FEWEST_QUERIES`.

  References:
    Our own rule; docs/results.md has what it chooses and what that gains.
  """
  if num_queries < FEWEST_QUERIES:
    return 0
  ranking = over_itq(average_precision)[:-1].mean(axis=1)
  return int(np.flatnonzero(ranking >= ranking[0] - BORNE)[-1])


def start(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Turns the directions of `udh_jax.stages.discriminant` by ITQ, flattened where that suits.

  Inputs: ``features``, ``discriminant``, ``partitions``, and ``baselines``, whose ITQ is what codes
  are compared with on images held out of the training.

  Outputs: ``codes`` uint8 ``[rows, ceil(bits / 8)]``; ``function``, the fields of its `LinearHash`;
  ``chosen``, a number of `FLATNESSES`; and ``agreement``, float32 ``[flatnesses + 1, sizes]``, the
  last row ITQ's.
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
    found = agreements(context, inputs["partitions"], [*codes, inputs["baselines"]["itq"]])
    agreement = found.mean(axis=2)
    num_queries = min(found.shape[-1], len(held_out_rows(context.dataset.splits)))
    chosen = mesh_lib.agreed(flatness_that_suits(agreement, num_queries))
    return {
      "codes": codes[chosen],
      "function": functions[chosen]._asdict(),
      **mesh_lib.replicate(
        context.mesh,
        {"chosen": jnp.int32(chosen), "agreement": jnp.asarray(agreement, jnp.float32)},
      ),
    }

  return Work(finish=finish, row_outputs=("codes",))


# Version 4: directions are flattened as far as the ranking bears, in large collections alone.
# Version 5: and only where images are held out of the training.
STAGE = Stage("start", start, ("bits", "seed"), version=5)
