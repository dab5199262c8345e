"""Which part of a backbone is its end: what a small collection can afford to train."""

import re

from udh_jax.models.registry import create_backbone


def is_last(backbone: str, part: str) -> bool:
  """Whether a top-level part of a backbone's parameters belongs to its end.

  That is about the last sixth of its layers, with what follows them.

  Args:
    backbone: Its name.
    part: Name of the part. A backbone without a known end is all end.
  """
  return re.fullmatch(create_backbone(backbone).last_parts, part) is not None
