"""Pairs in, packed codes of both sides out."""

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.network import facts
from udh_jax.stages.pairs import image_view, pair_module
from udh_jax.stages.rows import map_rows

FIELDS = ("encode", "dtype")


def encode_pairs(context: Context, config, inputs, *, image_size: int) -> Work:
  """Codes of every pair by the image and by the text network: sign(h), packed.

  Outputs: ``image_codes`` and ``text_codes``, uint8 ``[rows, ceil(bits / 8)]``.
  """
  network = inputs["networks"]
  module = pair_module(facts(network), config.dtype)
  view = image_view(network, image_size)

  def function(variables, batch):
    images, texts = module.apply(variables, view(batch), batch["text"])
    return {"image_codes": pack_codes(sign(images)), "text_codes": pack_codes(sign(texts))}

  return map_rows(
    context,
    function,
    network["variables"],
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("image_codes", "text_codes"),
  )
