"""What every field of a configuration may hold, so that nothing invalid is found after hours.

Limits upwards are far beyond use: they keep counts within 32 bits and numbers within float32, and
tell a slip of the keyboard from a wish.
"""

from collections.abc import Mapping

from ml_collections import ConfigDict

from udh_jax.cpu.widths import MOST_BYTES
from udh_jax.errors import require
from udh_jax.losses.registry import POINT_WISE
from udh_jax.models.heads import CLASSIFIERS
from udh_jax.models.registry import BACKBONES
from udh_jax.records import TEXT as ANY_TEXT
from udh_jax.records import Kind, brief, number, whole
from udh_jax.retrieval.metrics import DENOMINATORS, EMPTY, TIES
from udh_jax.similarity.structure import MOST_ROWS
from udh_jax.stages.embedding import SPACES
from udh_jax.stages.hash_network import STARTS
from udh_jax.stages.network import TRAINED
from udh_jax.stages.student import DISCRETE


def _words(*words: str) -> Kind:
  return Kind(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def _list_of(kind: Kind, *, least: int) -> Kind:
  return Kind(
    f"{'one or more numbers' if least else 'numbers'}, each {kind.words}",
    lambda value: isinstance(value, list) and len(value) >= least and all(map(kind.holds, value)),
  )


def _range(most: float) -> Kind:
  return Kind(
    f"two numbers, the least and the greatest, above 0 and up to {most:g}",
    lambda value: (
      isinstance(value, list)
      and len(value) == 2
      and all(number(1e-6, most).holds(item) for item in value)
      and value[0] <= value[1]
    ),
  )


_ROWS = whole(0, 10**9)  # of images; 0 where it stands for all, or for no limit
_COUNT = whole(1, 10**9)
_BATCH = whole(1, 1 << 20)
_WIDTH = whole(1, 1 << 20)
_SIDE = whole(1, 1 << 14)  # pixels
_BITS = whole(1, 8 * MOST_BYTES)
_SHARE = number(0, 1)
_PART = Kind(
  "a number from 0 to less than 1",
  lambda value: number(0, 1).holds(value) and value < 1,
)
_WEIGHT = number(0, 1e30)  # as a rate of learning, finite in float32
_TEMPERATURE = number(1e-6, 1e6)
_TRUTH = Kind("true or false", lambda value: isinstance(value, bool))

# By the last part of a field's name, or by more of it where that has several meanings.
KINDS: Mapping[str, Kind] = {
  "seed": whole(0, 2**31 - 1),
  "bits": _BITS,
  "round_bits": _BITS,
  "networks": whole(1, 1000),
  "last_round": _words("network", "layer"),
  "djsrh.bits": whole(0, 1 << 16),
  "dtype": _words("float32", "bfloat16"),
  "checkpoint_every": _COUNT,
  "rounds": whole(1, 1000),  # each has stages of its own
  "student.rounds": whole(1, 10**6),
  "batch_size": _BATCH,
  "chunk_size": whole(0, 1 << 20),
  "steps": _COUNT,
  "adapt.steps": _ROWS,
  "share": _SHARE,
  "invariance": number(-1, 1),
  "epochs": whole(1, 10**6),
  "sampled_pairs": _COUNT,
  "sweeps": whole(0, 10**6),
  "hidden": _WIDTH,
  "directions": whole(0, 1 << 20),
  "projection": _WIDTH,
  "image_size": _SIDE,
  "image_sizes": _list_of(_SIDE, least=1),
  "backbone": _words(*BACKBONES),
  "weights": ANY_TEXT,
  "start": _words("teacher", "random"),
  "trained": _words(*TRAINED),
  "hash_start": _words(*STARTS),
  "discrete": _words(*DISCRETE),
  "optimizer": _words("sgd", "adam"),
  "decay": _words("none", "cosine"),
  "unsure": _words("ignore", "structure"),
  "psch.similarity": _words("parts", "one"),
  "psch.classifier": _words(*CLASSIFIERS),
  "learning_rate": _WEIGHT,
  "head_learning_rate": _WEIGHT,
  "backbone_learning_rate": _WEIGHT,
  "image_learning_rate": _WEIGHT,
  "text_learning_rate": _WEIGHT,
  "momentum": _PART,
  "dropout": _PART,
  "label_smoothing": _PART,
  "weight_decay": _WEIGHT,
  "quantisation_weight": _WEIGHT,
  "balance_weight": _WEIGHT,
  "divergence_weight": _WEIGHT,
  "entropy_weight": _WEIGHT,
  "classification_weight": _WEIGHT,
  "within_weight": _WEIGHT,
  "confidence_power": number(0, 1000),
  "temperature": _TEMPERATURE,
  "augment.crop_scale": _range(100),
  "augment.crop_ratio": _range(100),
  "augment.padding": _SHARE,
  "augment.flip": _TRUTH,
  "augment.color": _SHARE,
  "augment.grayscale": _SHARE,
  "augment.cutout": _SHARE,
  "space": _words(*SPACES),
  "neighbours": whole(1, 1000),
  "dims": whole(1, 1 << 12),
  "num_clusters": whole(1, 1 << 24),
  "num_clusterings": whole(1, 1000),
  "num_restarts": whole(1, 10**6),
  "max_iterations": whole(1, 10**6),
  "min_size": _ROWS,
  "max_size": _ROWS,
  "threshold_quantile": Kind(
    "a number above 0, which leaves no confident image, and at most 1, which leaves all",
    lambda value: number(0, 1).holds(value) and value > 0,
  ),
  "views.number": whole(1, 64),
  "groups": whole(1, 1 << 20),
  "structure.num_images": whole(2, MOST_ROWS),
  "deviations": number(0, 1e6),
  "apart": number(-1, 1),
  "image_share": _SHARE,
  "cross_share": _SHARE,
  "beta": _SHARE,
  "eta": _SHARE,
  "mu": number(1e-6, 1e6),
  "negatives": whole(1, 1 << 24),
  "memory_momentum": _SHARE,
  "contrast_share": _SHARE,
  "shift": number(0, 1e6),
  "loss.name": _words(*POINT_WISE),
  "scale": number(1e-6, 1e6),
  "margin": number(0, 1e6),  # what each loss can have is narrower, see `require_margin`
  "annealing_start": _WEIGHT,
  "annealing_rate": _WEIGHT,
  "annealing_least": _WEIGHT,
  "score.at": _ROWS,
  "score.radius": whole(0, 1 << 16),
  "curve": _list_of(_COUNT, least=0),
  "denominator": _words(*DENOMINATORS),
  "ties": _words(*TIES),
  "empty": _words(*EMPTY),
}


def kind_of(field: str) -> Kind | None:
  """What a field may hold; None if that is not known here."""
  parts = field.split(".")
  names = (".".join(parts[first:]) for first in range(len(parts)))
  return next((KINDS[name] for name in names if name in KINDS), None)


def require_valid(config: ConfigDict, *, but: str | None = None) -> None:
  """Refuses a configuration with a field that is not as it has to be.

  ``method`` is looked up where the plan is made and ``data`` checked where it is loaded, each
  before anything is read. Fields that are not known are left alone.

  Args:
    config: Whole.
    but: What any field may be, until it is known what it will be.

  Raises:
    InputError: If a field is of another kind; names it, its value and what is expected.
  """

  def check(section, prefix):
    for name, value in section.items():
      field = f"{prefix}{name}"
      value = list(value) if isinstance(value, tuple) else value
      shown = value.to_dict() if isinstance(value, ConfigDict) else value
      if (kind := kind_of(field)) is not None:
        good = kind.holds(value) or (but is not None and value == but)
        require(good, f"{field} is {brief(shown)}; give {kind.words}.")
      elif isinstance(value, Mapping | ConfigDict) and field != "data":
        check(value, f"{field}.")

  check(config, "")
  if "cluster" in config and "max_size" in config.cluster:
    least, most = config.cluster.min_size, config.cluster.max_size
    require(
      but in (least, most) or not most or least <= most,
      f"cluster.min_size is {least} and cluster.max_size {most}; give a least size up to the "
      "greatest, or 0 for none.",
    )
