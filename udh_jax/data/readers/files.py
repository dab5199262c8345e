"""Fields of data sets that are files of pictures."""

from typing import Any

# path: the folder. image_size: side of the square that the host decodes to.
FILE_FIELDS = {"path": "", "image_size": 256, "on_unreadable": "skip"}
FILE_CHOICES = {"on_unreadable": ("skip", "refuse")}
PAIR_CHOICES = {**FILE_CHOICES, "on_unpaired": ("keep", "skip", "refuse")}


def file_options(config: Any) -> dict[str, Any]:
  """How picture files are read: options of `udh_jax.data.pictures.open_pictures`."""
  return {"image_size": config.image_size, "on_unreadable": config.on_unreadable}
