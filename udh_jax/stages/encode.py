"""Images in, packed codes out."""

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.models.heads import HashNetwork
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages import clusterings
from udh_jax.stages.network import backbone_of, plain_view
from udh_jax.stages.rows import map_rows

FIELDS = ("encode", "student.image_size", "bits", *clusterings.FIELDS, "dtype")


def encode(context: Context, config, inputs) -> Work:
  """Codes of every image. Output ``codes``: packed, uint8 ``[rows, ceil(bits / 8)]``."""
  student = inputs["student"]
  backbone = backbone_of(student, config.dtype)
  module = HashNetwork(backbone, config.bits, clusterings.num_logits(config))
  view = plain_view(student, config.student.image_size)

  def function(variables, images, index):
    del index
    relaxed, _ = module.apply(variables, view(images))
    return {"codes": pack_codes(sign(relaxed))}

  return map_rows(
    context,
    function,
    student["variables"],
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("codes",),
  )
