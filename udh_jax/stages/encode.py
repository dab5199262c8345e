"""Images in, packed codes out."""

from udh_jax.encoders.image import codes_of
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.features import reading_size
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import backbone_variables, facts

FIELDS = ("encode", "features.image_sizes", "bits", "dtype")


def description(student, config) -> dict:
  """What `udh_jax.encoders.image.codes_of` has to know of a student."""
  about = facts(student)
  return {
    **{name: about[name] for name in ("backbone", "padding", "mean", "std")},
    "dtype": config.dtype,
    "image_size": reading_size(config),
    "bits": config.bits,
  }


def hash_variables(student) -> dict:
  """The variables of a student that make its codes."""
  return {
    "backbone": backbone_variables(student),
    "hash": student["variables"]["params"]["hash"],
  }


def encode(context: Context, config, inputs) -> Work:
  """Codes of every image. Output ``codes``: packed, uint8 ``[rows, ceil(bits / 8)]``."""
  student = inputs["student"]
  about = description(student, config)
  return map_rows(
    context,
    lambda variables, batch: {"codes": codes_of(variables, batch["image"], about)},
    hash_variables(student),
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("codes",),
  )
