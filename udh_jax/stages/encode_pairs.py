"""Pairs in, packed codes of both sides out."""

from udh_jax.encoders.pair import image_codes_of, text_codes_of
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import facts

FIELDS = ("encode", "features.image_sizes", "dtype")


def description(network, config) -> dict:
  """What `udh_jax.encoders.pair` has to know of a pair network."""
  return {
    **facts(network),
    "dtype": config.dtype,
    "image_size": config.features.image_sizes[-1],
  }


def encode_pairs(context: Context, config, inputs) -> Work:
  """Codes of every pair by the image and by the text network.

  Outputs: ``image_codes`` and ``text_codes``: sign(h), packed, uint8 ``[rows, ceil(bits / 8)]``.
  """
  network = inputs["networks"]
  about = description(network, config)
  return map_rows(
    context,
    lambda variables, batch: {
      "image_codes": image_codes_of(variables, batch["image"], about),
      "text_codes": text_codes_of(variables, batch["text"], about),
    },
    network["variables"],
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("image_codes", "text_codes"),
  )
