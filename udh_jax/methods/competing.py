"""Presets of competing methods: the teacher, pictures and sizes of those they stand beside."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import automatic, defaults


def presets(
  default_config: Callable[[str], ConfigDict],
  section: str,
  *,
  on_a_folder: Mapping[str, Any] | None = None,
  **on_pictures: Any,
) -> dict[str, Callable[[], ConfigDict]]:
  """Presets of a competing method on images: digits, cifar10, mirflickr25k, folder.

  Where a network is trained on pictures, it is for 400 steps of 64. On a folder, sides follow from
  the pictures, and so do the length of a training of the network and how much of it is trained; a
  hash layer alone keeps the length that is given.

  Args:
    default_config: Of the method, by the name of the data.
    section: Of its training.
    on_a_folder: Fields of that section in the preset folder, before those of all presets.
    **on_pictures: Fields of that section in all presets but digits.
  """

  def on_photographs(data, score_at):
    config = default_config(data)
    defaults.on_two_cores(config)
    config[section].update(on_pictures)
    config.score.at = score_at
    return config

  def digits():
    config = default_config("digits")
    defaults.on_digits(config, config[section])
    return config

  def folder():
    config = on_photographs("folder", 0)
    config[section].update(on_a_folder or {})
    given = config[section].to_dict()
    automatic.on_any_pictures(config)
    if given["trained"] == "head":
      config[section].update(trained="head", steps=given["steps"])
    return config

  return {
    "digits": digits,
    "cifar10": lambda: on_photographs("cifar10", 1000),
    # Several labels an image, relevant if one is shared; 5,000 images to train on.
    "mirflickr25k": lambda: on_photographs("flickr25k", 5000),
    # Class subfolders are used for scoring only.
    "folder": folder,
  }
