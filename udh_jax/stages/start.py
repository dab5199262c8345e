"""Features and directions in, the hash function that a hash layer starts at out."""

import jax
from ml_collections import ConfigDict

from udh_jax.coding import baselines as baselines_lib
from udh_jax.coding.binary import pack_codes
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import centred_features
from udh_jax.stages.discriminant import fit_on_directions


def start(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Turns the directions of `udh_jax.stages.discriminant` by ITQ.

  Inputs: ``features`` and ``discriminant``.

  Outputs: ``codes`` uint8 ``[rows, ceil(bits / 8)]``, and ``function``, the fields of its
  `LinearHash`.
  """
  features = centred_features(inputs["features"])
  found = inputs["discriminant"]
  directions = baselines_lib.LinearHash(found["mean"], found["projection"])
  encode = jax.jit(lambda fitted, features: pack_codes(baselines_lib.encode(fitted, features)))

  def finish(state):
    del state
    function = fit_on_directions(context, features, directions, config.bits, config.seed)
    return {"codes": encode(function, features), "function": function._asdict()}

  return Work(finish=finish, row_outputs=("codes",))


STAGE = Stage("start", start, ("bits", "seed"))
