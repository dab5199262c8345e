"""Fields that the configurations of a method share; a file in ``configs/`` sets what is its own."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from udh_jax.data.registry import data_config
from udh_jax.errors import require


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


def _training(**changes: Any) -> dict[str, Any]:
  """Fields that `udh_jax.stages.training` reads, with ``changes``."""
  return {
    "steps": 400,
    "batch_size": 64,
    "learning_rate": 3e-4,
    "head_learning_rate": 3e-3,
    "weight_decay": 1e-4,
    "augment": augmentation(),
  } | changes


def _common(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
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
      },
    }
  )
  config.data = data_config(data)
  config.data.update(data_fields)
  return config


def _on_images(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
  """Fields that every method on images alone has."""
  config = _common(method, data, data_fields)
  config.update(
    {
      # `weights`: a safetensors file or hf-hub:owner/name; empty trains a teacher by `pretrain`.
      "teacher": {
        "backbone": "mobilenetv2_100",
        "weights": "hf-hub:timm/mobilenetv2_100.ra_in1k",
        "image_size": 96,
      },
      # Only where the teacher has no weights: contrast between two views of an image.
      "pretrain": _training(
        batch_size=256,
        learning_rate=1e-3,
        head_learning_rate=1e-3,
        temperature=0.3,
        projection=64,
      ),
      # Side of the images that features are read from in each round; the last one serves all that
      # follows: later rounds, soft labels, codes. Networks are trained at a side of their own.
      "features": {"image_sizes": (224, 96), "batch_size": 64},
      # `start`: "teacher" begins at the (fine-tuned) teacher's weights, "random" from nothing.
      "student": {"backbone": "mobilenetv2_100", "start": "teacher", "image_size": 96},
    }
  )
  return config


def udh_ecc(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of UDH-ECC with their usual values (methods.md section 8 where it is ours).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_images("udh_ecc", data, data_fields)
  config.update(
    {
      # features -> cluster -> finetune, so many times, each from the teacher of the one before.
      "rounds": 2,
      # min_size = max_size = 0: sizes are exactly floor or ceil of n / num_clusters.
      "cluster": {
        "num_clusters": 10,
        "num_clusterings": 1,  # from other starts; the teacher learns one head for each
        "num_restarts": 10,
        "max_iterations": 50,
        "min_size": 0,
        "max_size": 0,
      },
      "finetune": _training(label_smoothing=0.1),
      "soft_labels": {"temperature": 2.0, "batch_size": 64},
      "distill": _training(
        quantisation_weight=0.1,
        balance_weight=0.1,
        confidence_power=1.0,  # 0 trusts all soft labels alike
      ),
    }
  )
  return config


def cibhash(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of CIBHash with their usual values: the authors' where they are in methods.md.

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_images("cibhash", data, data_fields)
  config.contrast = _training(temperature=0.3, divergence_weight=0.001)
  return config


def _pair_training(**changes: Any) -> dict[str, Any]:
  """Fields that `udh_jax.stages.pair_network` reads, with ``changes``."""
  return {
    "hidden": 4096,
    "dropout": 0.0,
    "image_size": 96,  # of pictures
    "augment": augmentation(),  # of pictures
    "batch_size": 32,
    "image_learning_rate": 0.01,
    "text_learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay": "none",
  } | changes


def _on_pairs(method: str, data: str, data_fields: Mapping[str, Any]) -> ConfigDict:
  """Fields that every method on image-text pairs has."""
  config = _common(method, data, data_fields)
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


def on_picture_pairs(config: ConfigDict) -> ConfigDict:
  """The same method for pictures and not features of them: on a published backbone."""
  config.teacher.weights = "hf-hub:timm/mobilenetv2_100.ra_in1k"
  config.encode.batch_size = 64
  config.checkpoint_every = 200
  for section in ("djsrh", "student", "contrast"):
    if section in config:
      config[section].image_learning_rate = 1e-3  # the backbone is trained too
  return config


def djsrh(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of DJSRH with the authors' values (methods.md section 2).

  Args:
    data: Name of the data set, one of pairs.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_pairs("djsrh", data, data_fields)
  config.djsrh = _djsrh(data)
  return config


# beta and within_weight are the authors', and their epochs and eta for pictures; epochs, eta, rates
# and their decay for features were chosen on validation pairs of Wikipedia.
_ON_FEATURES = {
  "beta": 0.3,
  "eta": 0.2,
  "within_weight": 0.3,
  "epochs": 120,
  "decay": "cosine",
  "image_learning_rate": 0.03,
  "text_learning_rate": 0.03,
}
_DJSRH = {
  "wikipedia": _ON_FEATURES,
  "features": _ON_FEATURES,
  "mirflickr25k": {"beta": 0.9, "within_weight": 0.1, "epochs": 80},
  "nus_wide": {"beta": 0.6, "within_weight": 0.1, "epochs": 80},
}


def _djsrh(data: str) -> dict[str, Any]:
  # bits 0: as long as the codes. within_weight: of both reconstructions within one modality.
  return _pair_training(**{"bits": 0, "eta": 0.4, "mu": 1.5} | _DJSRH[data])


def pair_contrast(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of the contrast of pairs with their usual values: ours.

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_pairs("pair_contrast", data, data_fields)
  config.contrast = _pair_training(
    epochs=60, batch_size=128, temperature=0.3, quantisation_weight=0.1
  )
  return config


def dudch(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of DUDCH with their usual values (methods.md section 8: ours).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_pairs("dudch", data, data_fields)
  config.djsrh = _djsrh(data)
  config.similarity = {"image_share": 0.5, "cross_share": 0.5}
  # In each of `rounds`: draw `sampled_pairs`, pass over them `epochs` times, then `sweeps` of DCC.
  config.student = _pair_training(
    rounds=30, sampled_pairs=2000, epochs=1, sweeps=3, quantisation_weight=0.06, discrete="dcc"
  )
  return config


# What the losses of `udh_jax.stages.supervised` take where it is not the usual: DHIH's is ours
# (docs/results.md), the rivals' as in their authors' code.
_LOSSES = {
  "scale": {"scale": 2.0},
  "l_softmax": {"margin": 2, "annealing_rate": 5.0, "annealing_least": 1.0},
  "a_softmax": {"margin": 4},
  "cosface": {"scale": 16.0, "margin": 0.2},
  "arcface": {"scale": 16.0, "margin": 0.2},
  "softmax": {},
  "greedyhash": {},
  "orthohash": {"margin": 0.3, "quantisation_weight": 0.0},
  "csq": {"quantisation_weight": 1e-4},
}
DHIH_LOSS = "l_softmax"  # of the method "dhih": the best of its family on validation images


def supervised(data: str, *, method: str = "dhih", **data_fields: Any) -> ConfigDict:
  """All fields of DHIH, or of one of its rivals, with their usual values.

  Args:
    data: Name of the data set.
    method: One of `udh_jax.methods.dhih.TITLES`; it decides the loss.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_images(method, data, data_fields)
  name = DHIH_LOSS if method == "dhih" else method.removeprefix("dhih_")
  # scale and margin: s and m of `udh_jax.losses.margin`; annealing_*: of its `annealing_weight`.
  config.loss = {
    "name": name,
    "scale": 1.0,
    "margin": 0,
    "annealing_start": 1000.0,
    "annealing_rate": 0.12,
    "annealing_least": 5.0,
    "quantisation_weight": 0.1,
  } | _LOSSES[name]
  config.supervised = _training(steps=500)
  config.score.at = 0
  return config


def _structure() -> dict[str, Any]:
  """Fields of the fit to distances: pairs of so many images; beyond so many deviations is sure."""
  return {"num_images": 2000, "deviations": 2.0}


def ssdh(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of SSDH with their usual values: the authors' where they are in methods.md.

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_images("ssdh", data, data_fields)
  config.structure = _structure()
  config.ssdh = _training(hash_start="itq")  # "itq" begins at the baseline's codes, or "random"
  return config


def psch(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of PSCH with their usual values (methods.md section 8: ours).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `data_config` to set.
  """
  config = _on_images("psch", data, data_fields)
  config.update(
    {
      # Images within this quantile of the distances to the own centroid are confident.
      "cluster": {
        "num_clusters": 30,
        "num_restarts": 5,
        "max_iterations": 100,
        "threshold_quantile": 0.8,
      },
      "parts": {"groups": 8, "temperature": 1.0},
      "structure": _structure(),  # read where `unsure` is "structure"
      "psch": _training(
        classification_weight=1.0,
        quantisation_weight=0.1,
        similarity="parts",  # within a pseudo class; or "one"
        apart=0.0,  # the target between pseudo classes; three may well be one true class
        unsure="ignore",  # pairs with an image that is not confident; or "structure", as SSDH
        hash_start="itq",  # begins at the baseline's codes, or "random"
      ),
    }
  )
  return config


def on_digits(config: ConfigDict, training: ConfigDict) -> None:
  """Sets sizes and steps for scikit-learn's 8 x 8 digits, with a teacher of one's own.

  Args:
    config: Of a method on images.
    training: The section of its training.
  """
  views = augmentation(
    crop_scale=(0.6, 1.0), crop_ratio=(0.8, 1.25), padding=0.1, flip=False, color=0.2
  )
  config.teacher.update(backbone="small_convnet", weights="", image_size=8)
  config.pretrain.update(steps=200, augment=views)
  config.features.update(image_sizes=(8,), batch_size=256)
  config.student.image_size = 8
  training.update(steps=200, batch_size=128, learning_rate=1e-3, augment=views)
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
