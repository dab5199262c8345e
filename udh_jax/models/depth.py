"""Which part of a backbone is its end: what a small collection can afford to train."""

# Names of the backbone's last parts, by the beginning of its name: about the last sixth of the
# layers, with what follows them.
_LAST = {
  "mobilenetv2": ("blocks_5", "blocks_6", "conv_head", "bn2"),
  "efficientnet": ("blocks_5", "blocks_6", "conv_head", "bn2"),
  "resnet": ("layer4",),
  "convnext": ("stages_3", "head"),
  "vit": ("blocks_10", "blocks_11", "norm"),
  "small_convnet": (),
}


def is_last(backbone: str, part: str) -> bool:
  """Whether a top-level part of a backbone's parameters belongs to its end.

  Args:
    backbone: Its name.
    part: Name of the part. A backbone without a known end is all end.
  """
  known = [last for start, last in _LAST.items() if backbone.startswith(start)]
  return not known or not known[0] or part.startswith(known[0])
