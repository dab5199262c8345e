"""Presets of ``configs/``, and how they are shortened."""

import importlib.util
import pathlib

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


def module(name: str):
  """A file of ``configs/`` as a module."""
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  found = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(found)
  return found


def load(name: str, *preset: str):
  """The configuration of a file, or of a preset in it."""
  return module(name).get_config(*preset)


def every_preset() -> list[tuple[str, ...]]:
  """File, and preset where the file has several, of all configurations."""
  found = []
  for name in sorted(path.stem for path in CONFIGS.glob("*.py")):
    presets = getattr(module(name), "PRESETS", None)
    found += [(name,)] if presets is None else [(name, preset) for preset in presets]
  return found


def shorten_pairs(config, path):
  """A few steps of a method on the pairs of features in ``path``."""
  config.update(bits=12, checkpoint_every=50)
  config.data.update(name="features", path=str(path))
  with config.unlocked():
    for field in ("image", "text", "label"):
      config.data[field], config.data[f"{field}_test"] = field, ""
  config.data.update(num_queries=30, num_validation=30)
  for section in ("djsrh", "student", "contrast", "ucch"):
    if section in config:
      config[section].update(hidden=32, batch_size=16)
  if "djsrh" in config:
    config.djsrh.update(epochs=6, bits=0)
  if "student" in config:
    config.student.update(rounds=2, sampled_pairs=50)
  return config
