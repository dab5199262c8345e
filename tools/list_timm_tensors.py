"""Writes the names and shapes of timm's tensors, which tests hold the backbones to.

pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31
python tools/list_timm_tensors.py tests/models/timm_tensors.txt

A line for each run of names that differ in one number only: ``blocks.0-11.norm1.weight 384``.
"""

import argparse
import itertools
import pathlib
import re

import timm
import torch

from udh_jax.models.registry import BACKBONES

CLASSES = 7  # of the classifier


def lines_of(name):
  """The lines of one network."""
  with torch.device("meta"):
    model = timm.create_model(name, num_classes=CLASSES)
  groups = {}
  for tensor, values in model.state_dict().items():
    if not tensor.endswith("num_batches_tracked"):
      # The last number between dots counts up: a block of a stage.
      counted = re.fullmatch(r"(.*\.)(\d+)(\..*)", tensor)
      before, number, after = counted.groups() if counted else (tensor, "", "")
      key = before, after, ",".join(map(str, values.shape))
      groups.setdefault(key, []).append(number)
  for (before, after, shape), numbers in groups.items():
    counts = sorted(int(number or 0) for number in numbers)
    if len(counts) == 1:
      yield f"{before}{numbers[0]}{after} {shape}"
      continue
    for _, run in itertools.groupby(enumerate(counts), lambda pair: pair[1] - pair[0]):
      run = [count for _, count in run]
      yield f"{before}{run[0]}-{run[-1]}{after} {shape}"


def main():
  """Runs the program."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("target")
  options = parser.parse_args()
  lines = [f"# timm {timm.__version__}, classifiers of {CLASSES} classes"]
  alike = {}
  for name in sorted(BACKBONES.keys() - {"small_convnet"}):
    alike.setdefault(tuple(lines_of(name)), []).append(name)
  for tensors, names in alike.items():
    lines += [f"[{' '.join(names)}]", *tensors]
  pathlib.Path(options.target).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
  main()
