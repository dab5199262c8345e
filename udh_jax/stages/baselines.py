"""Features in, codes of the baselines out: LSH, PCA with a random rotation, ITQ."""

import functools
from collections.abc import Callable

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from udh_jax.coding import baselines as baselines_lib
from udh_jax.coding.binary import pack_codes
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.map_rows import train_weights

BASELINES = {
  "lsh": baselines_lib.lsh,
  "pca_rotation": baselines_lib.pca_rotation,
  "itq": baselines_lib.itq,
}


def centred_features(outputs: Inputs) -> jax.Array:
  """Features ``[rows, d]`` as the network made them, but for the mean: what baselines are given.

  Args:
    outputs: Of the stage `udh_jax.stages.features` or `udh_jax.stages.soft_labels`.
  """
  return outputs["features"] * outputs["length"][:, None]


@functools.cache
def _fit(mesh: Mesh, name: str, bits: int) -> Callable[..., baselines_lib.LinearHash]:
  options = {"num_bits": bits, "axis_name": mesh_lib.DATA_AXIS}

  def function(features, weights, key):
    return BASELINES[name](features, weights=weights, key=key, **options)

  return mesh_lib.on_rows(mesh, function, rows=2, whole=1)


def fit(
  context: Context, name: str, features: jax.Array, bits: int, seed: int
) -> baselines_lib.LinearHash:
  """Fits a baseline on the training rows of all devices; returns a `LinearHash` on all of them."""
  return _fit(context.mesh, name, bits)(features, train_weights(context), jax.random.key(seed))


@jax.jit
def packed_codes(function: baselines_lib.LinearHash, features: jax.Array) -> jax.Array:
  """Codes of features by a linear hash function, uint8 ``[rows, ceil(bits / 8)]``."""
  return pack_codes(baselines_lib.encode(function, features))


def fitted(outputs: Inputs, name: str) -> baselines_lib.LinearHash:
  """The hash function of a baseline in the outputs of `baselines`.

  Args:
    outputs: Of the stage.
    name: One of `BASELINES`.

  Raises:
    InputError: If there is none, as the features have fewer numbers than the codes have bits.
  """
  functions = outputs["functions"]
  require(
    name in functions,
    lambda: (
      f"There is no {name} of {functions['lsh']['projection'].shape[1]} bits: the network has only "
      f"{functions['lsh']['projection'].shape[0]} features; ask for fewer bits, or for 'lsh' or a "
      "'random' start."
    ),
  )
  return baselines_lib.LinearHash(**functions[name])


def baselines(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Codes of every image by each baseline, fitted on the training rows.

  Outputs: for each name in `BASELINES`, uint8 ``[rows, ceil(bits / 8)]``, and under ``functions``
  the fields of its `LinearHash`. A baseline that cannot make so many bits of these features is left
  out.
  """
  features = centred_features(inputs["features"])
  names = tuple(name for name in BASELINES if name == "lsh" or config.bits <= features.shape[1])

  def finish(state):
    del state
    functions = {name: fit(context, name, features, config.bits, config.seed) for name in names}
    codes = {name: packed_codes(function, features) for name, function in functions.items()}
    return codes | {"functions": {name: found._asdict() for name, found in functions.items()}}

  return Work(finish=finish, row_outputs=names)


STAGE = Stage("baselines", baselines, ("bits", "seed"))
