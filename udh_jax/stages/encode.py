"""Images, or pairs of images and texts, in; packed codes out."""

from ml_collections import ConfigDict

from udh_jax.encoders.image import codes_of
from udh_jax.encoders.pair import image_codes_of, text_codes_of
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.features import as_the_backbone_made_them, reading_size
from udh_jax.stages.hash_network import layer_codes
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import Network, backbone_variables, facts
from udh_jax.stages.pair_network import features_read, reads_features


def hash_description(network: Network, config: ConfigDict) -> dict:
  """What `udh_jax.encoders.image.codes_of` has to know of a hash network."""
  about = facts(network)
  return {
    **{name: about[name] for name in ("backbone", "padding", "mean", "std")},
    "dtype": config.dtype,
    "image_size": reading_size(config),
    "bits": config.bits,
  }


def hash_variables(network: Network) -> dict:
  """The variables of a hash network that make its codes."""
  return {
    "backbone": backbone_variables(network),
    "hash": network["variables"]["params"]["hash"],
  }


def encode_images(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Codes of every image.

  Inputs: ``network``, and ``features`` where its backbone stayed as it was when it made these.

  Output: ``codes``, packed, uint8 ``[rows, ceil(bits / 8)]``.
  """
  network = inputs["network"]
  if "features" in inputs:
    layer, features = hash_variables(network)["hash"], dict(inputs["features"])
    return Work(
      finish=lambda state: {"codes": layer_codes(layer, features)}, row_outputs=("codes",)
    )
  about = hash_description(network, config)
  return map_rows(
    context,
    lambda variables, batch: {"codes": codes_of(variables, batch["image"], about)},
    hash_variables(network),
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("codes",),
  )


IMAGES = Stage(
  "encode",
  encode_images,
  ("encode", "features.image_sizes", "bits", "dtype"),
  free=("encode.batch_size",),
)


def pair_description(network: Network, config: ConfigDict) -> dict:
  """What `udh_jax.encoders.pair` has to know of a pair network."""
  about = {**facts(network), "dtype": config.dtype, "image_size": reading_size(config)}
  del about["reads_features"]  # of how it was trained: alone it reads pictures
  return about


def encode_pairs(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Codes of every pair by the image and by the text network.

  Inputs: ``network``, and ``features`` where it reads those of its backbone.

  Outputs: ``image_codes`` and ``text_codes``: sign(h), packed, uint8 ``[rows, ceil(bits / 8)]``.
  """
  network = inputs["network"]
  about = pair_description(network, config)
  from_features = reads_features(network)
  frozen = features_read(network, inputs)

  def function(constants, batch):
    if from_features:
      images = as_the_backbone_made_them(constants["frozen"], batch["index"])
    else:
      images = batch["image"]
    variables = constants["variables"]
    return {
      "image_codes": image_codes_of(variables, images, about, from_features=from_features),
      "text_codes": text_codes_of(variables, batch["text"], about),
    }

  return map_rows(
    context,
    function,
    {"variables": network["variables"], "frozen": frozen},
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("image_codes", "text_codes"),
    images=not from_features,
  )


PAIRS = Stage(
  "encode", encode_pairs, ("encode", "features.image_sizes", "dtype"), free=("encode.batch_size",)
)
