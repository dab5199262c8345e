"""Losses of the supervised trainer by name; each is a method of ``configs/dhih.py``."""

from udh_jax.losses import competing, family
from udh_jax.losses.types import PointWiseLoss

POINT_WISE: dict[str, PointWiseLoss] = {
  **family.MEMBERS,
  "softmax": family.SOFTMAX,
  "greedyhash": competing.GREEDYHASH,
  "orthohash": competing.ORTHOHASH,
  "csq": competing.CSQ,
}
