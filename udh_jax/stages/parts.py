"""Images in, features and part vectors out: what groups of channels see where they look."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from udh_jax.models.parts import attention_maps, part_vectors
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import features
from udh_jax.stages.network import Network, backbone_of, plain_view


def part_maps(
  network: Network, config: ConfigDict, *, image_size: int
) -> Callable[[Any, Any], tuple[Any, Any]]:
  """The function from variables and stored images to feature maps and attention.

  Args:
    network: The frozen one.
    config: ``parts`` and ``dtype`` are read.
    image_size: Side that whole images are read at; that of the features.

  Returns:
    ``(variables, images uint8 [b, h, w, 3]) -> (map [b, h', w', C], attention [b, h', w', G])``.
  """
  module = backbone_of(network, config.dtype)
  view = plain_view(network, image_size)

  def function(variables, images):
    feature_map = module.apply(variables, view(images), pooled=False)
    attention = attention_maps(
      feature_map, groups=config.parts.groups, temperature=config.parts.temperature
    )
    return feature_map, attention

  return function


def parts(context: Context, config: ConfigDict, inputs: Inputs, *, image_size: int) -> Work:
  """Features and part vectors of every image, so that training need not read the frozen network.

  Outputs: those of `udh_jax.stages.features.features` and ``parts`` ``[rows, G, C / G]``, see
  `part_vectors`.

  References:
    PSCH: groups of deep feature maps with an attention map each are the paper's (its abstract).
  """
  read = part_maps(inputs["teacher"], config, image_size=image_size)
  return features.features(
    context,
    config,
    inputs,
    image_size=image_size,
    besides={"parts": lambda variables, images: part_vectors(*read(variables, images))},
  )


# Give it ``image_size`` by `Stage.with_options`.
STAGE = Stage("parts", parts, ("parts", *features.STAGE.fields), free=features.STAGE.free)
