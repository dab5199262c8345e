"""Features and directions in, the hash function that a hash layer starts at out."""

from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import centred_features, packed_codes
from udh_jax.stages.discriminant import itq_on_directions


def start(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Turns the directions of `udh_jax.stages.discriminant` by ITQ.

  Inputs: ``features`` and ``discriminant``.

  Outputs: ``codes`` uint8 ``[rows, ceil(bits / 8)]``, and ``function``, the fields of its
  `LinearHash`.
  """
  features = centred_features(inputs["features"])
  found = inputs["discriminant"]
  directions = LinearHash(found["mean"], found["projection"])

  def finish(state):
    del state
    function = itq_on_directions(context, features, config.bits, config.seed)(directions)
    return {"codes": packed_codes(function, features), "function": function._asdict()}

  return Work(finish=finish, row_outputs=("codes",))


STAGE = Stage("start", start, ("bits", "seed"))
