"""Images in, part vectors out: what groups of the frozen network's channels see where they look."""

from collections.abc import Callable
from typing import Any

from udh_jax.losses.part_similarity import attention_maps, part_vectors
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.network import backbone_of, backbone_variables, plain_view
from udh_jax.stages.rows import map_rows

FIELDS = ("parts", "features.image_sizes", "features.batch_size", "dtype")


def part_maps(network, config) -> Callable[[Any, Any], tuple[Any, Any]]:
  """The function from variables and stored images to feature maps and attention.

  The network reads whole images, at the side that its features are read at.

  Args:
    network: The frozen one.
    config: ``parts``, ``features.image_sizes`` and ``dtype`` are read.

  Returns:
    ``(variables, images uint8 [b, h, w, 3]) -> (map [b, h', w', C], attention [b, h', w', G])``.
  """
  module = backbone_of(network, config.dtype)
  view = plain_view(network, config.features.image_sizes[0])

  def function(variables, images):
    feature_map = module.apply(variables, view(images), pooled=False)
    attention = attention_maps(
      feature_map, groups=config.parts.groups, temperature=config.parts.temperature
    )
    return feature_map, attention

  return function


def parts(context: Context, config, inputs) -> Work:
  """Part vectors of every image, so that training need not read the frozen network again.

  Outputs: ``parts`` ``[rows, G, C / G]``, see `part_vectors`.

  References:
    PSCH: groups of deep feature maps with an attention map each are the paper's (its abstract).
  """
  network = inputs["teacher"]
  read = part_maps(network, config)
  return map_rows(
    context,
    lambda variables, batch: {"parts": part_vectors(*read(variables, batch["image"]))},
    backbone_variables(network),
    batch_size=config.features.batch_size,
    finish=lambda rows: rows,
    row_outputs=("parts",),
  )
