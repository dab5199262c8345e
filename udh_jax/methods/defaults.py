"""Fields that the configurations of several methods share; a method's own are in its file."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from udh_jax.data.registry import data_config
from udh_jax.errors import require

AUTO = "auto"


def or_auto(value: Any = AUTO) -> FieldReference:
  """A field that `udh_jax.methods.automatic.resolve` chooses where it is "auto"."""
  return FieldReference(value, field_type=object)


def augmentation(**changes: Any) -> dict[str, Any]:
  """Options of `udh_jax.data.augmentation.augment`, photographs' defaults with ``changes``."""
  return {
    "crop_scale": (0.4, 1.0),
    "crop_ratio": (0.75, 1.3333),
    "padding": 0.0,
    "flip": True,
    "color": 0.3,
    "grayscale": 0.0,
    "cutout": 0.0,
  } | changes


def training(**changes: Any) -> dict[str, Any]:
  """Fields that `udh_jax.stages.training` reads, with ``changes``.

  ``head_learning_rate`` is that of all parts that start at random, ``learning_rate`` of the others.
  """
  return {
    "steps": 400,
    "batch_size": 64,
    "learning_rate": 3e-4,
    "head_learning_rate": 3e-3,
    "trained": "all",  # of the backbone: "all", its "last" blocks, or nothing but the "head"
    "weight_decay": 1e-4,
    "augment": augmentation(),
  } | changes


def common(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
  """Fields that every method has."""
  config = ConfigDict(
    {
      "method": method,
      "seed": 0,
      "bits": 32,
      "dtype": "float32",  # of the networks' arithmetic; bfloat16 is for accelerators
      "checkpoint_every": 100,  # steps between two saves of an unfinished stage
      "encode": {"batch_size": 64},
      # at = 0 ranks the whole database. The words are defined in `mean_average_precision`.
      # `curve`: cut-offs at which precision, recall and NDCG are noted besides.
      "score": {
        "at": 1000,
        "curve": tuple(sorted(m * 10**e for m in (1, 2, 5) for e in range(5))),  # 1 to 50,000
        "denominator": "retrieved",
        "ties": "index",
        "empty": "zero",
        "radius": 2,  # Hamming distance
      },
    }
  )
  config.data = data_config(data)
  config.data.update(data_fields)
  return config


def on_images(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
  """Fields that every method on images alone has."""
  config = common(method, data, data_fields)
  config.update(
    {
      # `weights`: a safetensors file or hf-hub:owner/name; empty trains a teacher by `pretrain`.
      "teacher": {
        "backbone": "mobilenetv2_100",
        "weights": "hf-hub:timm/mobilenetv2_100.ra_in1k",
        "image_size": 96,
      },
      # Only where the teacher has no weights: contrast between two views of an image.
      "pretrain": training(
        batch_size=256,
        learning_rate=1e-3,
        head_learning_rate=1e-3,
        temperature=0.3,
        projection=64,
        chunk_size=0,
      ),
      # Side of the images that features are read from in each round; the last one serves all that
      # follows: later rounds, soft labels, codes. Networks are trained at a side of their own.
      "features": {"image_sizes": (224, 96), "batch_size": 64},
      "student": {"image_size": 96},  # side at which the hash network is trained
    }
  )
  return config


def score_folders(config: ConfigDict) -> None:
  """Ranks the whole database, and averages over all orders of items at equal distances.

  Where folders are the classes, names begin with the class: in the order of their names, codes that
  tie often would score by that order.

  Args:
    config: Of a method on images.
  """
  config.score.update(at=0, ties="expected")


def views() -> dict[str, Any]:
  """Fields of `udh_jax.stages.views`, of configurations whose codes are guarded.

  So many random views of each image are read by the untouched network. A network that stays as it
  is (``trained`` is "head") is trained on them; the last one is for the comparison of codes.
  """
  return {"number": 2, "image_size": 96, "augment": augmentation()}


def adaptation() -> dict[str, Any]:
  """Fields of `udh_jax.stages.adapt`; with 0 ``steps`` the network stays as it is.

  ``share`` is that of the trained weights in the mean that goes on. A network to which two views of
  a picture are alike by ``invariance`` (a mean cosine) or more stays as it is; 1 adapts any.
  """
  return training(label_smoothing=0.1, share=0.5, invariance=1.0)


def pair_training(**changes: Any) -> dict[str, Any]:
  """Fields that `udh_jax.stages.pair_network` reads, with ``changes``."""
  return {
    "hidden": 4096,
    # The network on images' features reads so many principal directions of wider ones; 0 is none.
    "directions": 128,
    "trained": "all",  # of the backbone of pictures: "all", its "last" blocks, or only the "head"
    "dropout": 0.0,
    "image_size": 96,  # of pictures
    "augment": augmentation(),  # of pictures
    "batch_size": 32,
    "optimizer": "sgd",
    "backbone_learning_rate": 1e-3,  # of a backbone that is trained; the others are the layers'
    "image_learning_rate": 0.01,
    "text_learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay": "none",
  } | changes


def on_pairs(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
  """Fields that every method on image-text pairs has."""
  config = common(method, data, data_fields)
  config.update(
    {
      # Of the image networks on pictures; no weights where images are features.
      "teacher": {"backbone": "mobilenetv2_100", "weights": ""},
      "features": {"image_sizes": (160,), "batch_size": 64},
    }
  )
  config.checkpoint_every = 2000  # small networks: a step takes milliseconds
  config.encode.batch_size = 1024
  config.score.at = 50
  return config


_PAIR_SECTIONS = ("djsrh", "student", "contrast", "ucch")
_PUBLISHED = "hf-hub:timm/mobilenetv2_100.ra_in1k"


def on_picture_pairs(config: ConfigDict) -> ConfigDict:
  """The same method for pictures and not features of them: on a published backbone."""
  config.teacher.weights = _PUBLISHED
  config.encode.batch_size = 64
  config.checkpoint_every = 200
  return config


def on_own_pairs(config: ConfigDict) -> ConfigDict:
  """The same method for pictures and texts of one's own: a published backbone stays as it is.

  Its features of every picture are made once, and the networks are trained on these: minutes on two
  cores. ``SECTION.trained = "last"`` or ``"all"`` trains the backbone too.
  """
  config.teacher.weights = _PUBLISHED
  config.encode.batch_size = 64
  config.score.ties = "expected"  # tables are sorted by something, often by the label
  for section in _PAIR_SECTIONS:
    if section in config:
      config[section].update(trained="head", backbone_learning_rate=1e-4)
  return config


def clustered_in() -> dict[str, Any]:
  """Fields that say in which space clusters are looked for, see `udh_jax.stages.embedding`.

  "features", or "neighbours": places by the graph of so many nearest neighbours.
  """
  return {"space": "features", "neighbours": 20, "dims": 16}


def on_the_graph(cluster: ConfigDict) -> None:
  """Sets fine clusters of the graph of neighbours, from five starts, for CIFAR-10's 50,000 images.

  Where a method bounds the sizes of clusters, the bounds are wide.

  Args:
    cluster: The section of a method.

  References:
    Our own; docs/results.md#clusters-in-the-graph-of-neighbours has the figures.
  """
  cluster.update(
    space="neighbours", num_clusters=50, num_clusterings=5, num_restarts=2, max_iterations=30
  )
  cluster.update({bound: AUTO for bound in ("min_size", "max_size") if bound in cluster})


def structure() -> dict[str, Any]:
  """Fields of the fit to distances: pairs of so many images; beyond so many deviations is sure."""
  return {"num_images": 2000, "deviations": 2.0}


def on_digits(config: ConfigDict, *trainings: ConfigDict) -> None:
  """Sets sizes and steps for scikit-learn's 8 x 8 digits, with a teacher of one's own.

  Args:
    config: Of a method on images.
    *trainings: The sections of its trainings.
  """
  views = augmentation(
    crop_scale=(0.6, 1.0), crop_ratio=(0.8, 1.25), padding=0.1, flip=False, color=0.2
  )
  config.teacher.update(backbone="small_convnet", weights="", image_size=8)
  config.pretrain.update(steps=200, augment=views)
  config.features.update(image_sizes=(8,), batch_size=256)
  if "student" in config:
    config.student.image_size = 8
  if "views" in config:
    config.views.update(image_size=8, augment=views)
  for training in trainings:
    training.update(steps=200, batch_size=128, learning_rate=1e-3, augment=views)
  if "encode" in config:
    config.encode.batch_size = 256
  config.score.at = 0


def on_accelerator(config: ConfigDict, *trainings: ConfigDict) -> None:
  """Sets a long run in bfloat16 at 224 pixels.

  Args:
    config: Of a method on images.
    *trainings: The sections of its trainings.
  """
  config.dtype = "bfloat16"
  config.teacher.image_size = config.student.image_size = 224
  config.features.update(image_sizes=(224,), batch_size=256)
  config.encode.batch_size = 256
  for training in trainings:
    training.update(steps=2000, batch_size=256)


def on_two_cores(config: ConfigDict) -> None:
  """Sets image sizes for photographs on two CPU cores."""
  config.teacher.image_size = config.student.image_size = 128
  config.features.image_sizes = (160,)
  if "views" in config:
    config.views.image_size = 128


def choose(argument: str, presets: Mapping[str, Any], file: str) -> Any:
  """The preset that stands behind the colon of ``--config file:argument``.

  Raises:
    InputError: If there is none of that name.
  """
  require(
    argument in presets,
    f"{file} has no preset {argument!r}; write --config {file}:NAME with one of "
    f"{', '.join(presets)}.",
  )
  return presets[argument]
