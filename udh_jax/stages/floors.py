"""Features in, codes of the floors out: LSH, PCA with a random rotation, ITQ."""

import functools

import jax
from jax.sharding import PartitionSpec

from udh_jax.coding import floors as floors_lib
from udh_jax.coding.binary import pack_codes
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.rows import train_weights

FIELDS = ("bits", "seed")
FLOORS = {"lsh": floors_lib.lsh, "pca_rotation": floors_lib.pca_rotation, "itq": floors_lib.itq}


def floors(context: Context, config, inputs) -> Work:
  """Codes of every image by each floor, fitted on the training rows.

  Outputs: for each name in `FLOORS`, uint8 ``[rows, ceil(bits / 8)]``. A floor that cannot make so
  many bits of these features is left out.
  """
  values = inputs["features"]["features"]
  names = [name for name in FLOORS if name == "lsh" or config.bits <= values.shape[1]]
  rows = PartitionSpec(mesh_lib.DATA_AXIS)

  @jax.jit
  @functools.partial(
    jax.shard_map, mesh=context.mesh, in_specs=(rows, rows, PartitionSpec()), out_specs=rows
  )
  def run(features, weights, key):
    codes = {}
    for name in names:
      fitted = FLOORS[name](
        features, config.bits, key=key, weights=weights, axis_name=mesh_lib.DATA_AXIS
      )
      codes[name] = pack_codes(floors_lib.encode(fitted, features))
    return codes

  def finish(state):
    del state
    return run(values, train_weights(context), jax.random.key(config.seed))

  return Work(finish=finish, row_outputs=tuple(names))
