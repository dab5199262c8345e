"""Stages and rows of tables that several methods have in common."""

from collections.abc import Callable

from ml_collections import ConfigDict

from udh_jax.clustering.equal_size_kmeans import require_sizes
from udh_jax.configuration import flatten
from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.models.registry import create_backbone, require_side
from udh_jax.runtime.plan import CodeSource, Plan
from udh_jax.runtime.stage import Stage
from udh_jax.stages import average, baselines, embedding, encode, features, structure
from udh_jax.stages.pseudo_labels import confident_count
from udh_jax.stages.teacher import teacher_stage

BASELINE_TITLES = {"itq": "ITQ", "pca_rotation": "PCA + rotation", "lsh": "LSH"}


def features_stage(
  config: ConfigDict, number: int, teacher: str, reading: Stage = features.STAGE
) -> Stage:
  """Features of round ``number``, counted from 1, by the network of the stage ``teacher``.

  Args:
    config: ``features.image_sizes`` is read.
    number: Of the round.
    teacher: Name of a stage.
    reading: What reads the images; that of `udh_jax.stages.parts` makes more than features.
  """
  sizes = config.features.image_sizes
  stage = reading.with_options(image_size=sizes[min(number, len(sizes)) - 1])
  return stage.named(f"features_{number}", teacher=teacher)


def clustered_stages(config: ConfigDict, number: int, clustering: Stage) -> tuple[Stage, ...]:
  """Clusters of round ``number``, in the space that ``cluster.space`` names.

  Args:
    config: Whole.
    number: Counted from 1. Clusters of features are of that round's; the graph of neighbours is of
      all rounds' up to it.
    clustering: What looks for clusters.
  """
  features, name = f"features_{number}", f"cluster_{number}"
  if config.cluster.space == "features":
    return (clustering.named(name, features=features),)
  before = {f"round_{earlier}": f"features_{earlier}" for earlier in range(1, number)}
  places = embedding.STAGE.named(f"embedding_{number}", features=features, **before)
  return places, clustering.named(name, features=places.name)


MEMBERS_APART = 1000  # seeds of two networks whose mean is taken


def averaged_stages(config: ConfigDict, training: Stage, count: int) -> list[Stage]:
  """A training, or, of several networks from other seeds, their trainings and the mean of these.

  Args:
    config: ``seed`` is read.
    training: With its name, which the mean gets, and inputs.
    count: How many networks.
  """
  if count == 1:
    return [training]
  members = [
    training.with_settings(seed=config.seed + MEMBERS_APART * member)._replace(
      name=f"{training.name}_{member + 1}"
    )
    for member in range(count)
  ]
  roles = {f"network_{place}": member.name for place, member in enumerate(members, start=1)}
  return [*members, average.STAGE.named(training.name, **roles)]


def structure_stage(number: int = 1, source: str = "features_1") -> Stage:
  """The spread of the distances of the features of the stage ``source``, in round ``number``."""
  return structure.STAGE.named(of_round("structure", number), features=source)


def of_round(name: str, number: int) -> str:
  """The name of a stage in round ``number``, counted from 1; the first has none."""
  return name if number == 1 else f"{name}_{number}"


def encode_stage(config: ConfigDict, network: str, **features: str) -> Stage:
  """Codes of images by the hash network of the stage ``network``, see `cached_features`."""
  return encode.IMAGES.named(f"encode_{config.bits}bits", network=network, **features)


def encode_pairs_stage(config: ConfigDict, network: str, **features: str) -> Stage:
  """Codes of pairs by the networks of the stage ``network``, see `cached_features`."""
  return encode.PAIRS.named(f"encode_{config.bits}bits", network=network, **features)


def baselines_stage(
  config: ConfigDict, name: str = "baselines", source: str = "features_1", bits: int | None = None
) -> Stage:
  """Codes of the baselines, made of the features of the stage ``source``.

  Args:
    config: ``bits`` is read.
    name: Without the length.
    source: Name of a stage.
    bits: Their length where it is not that of the configuration.
  """
  bits = config.bits if bits is None else bits
  return baselines.STAGE.with_settings(bits=bits).named(f"{name}_{bits}bits", features=source)


def backbone_stages(config: ConfigDict) -> tuple[tuple[Stage, ...], dict[str, str]]:
  """What image networks on pictures begin with, and its stages by role; nothing for features."""
  if not config.teacher.weights:
    return (), {}
  roles = {"backbone": "teacher", "features": "features_1"}
  return (teacher_stage(config), features_stage(config, 1, "teacher")), roles


def cached_features(config: ConfigDict, section: str, roles: dict[str, str]) -> dict[str, str]:
  """The stage of features, by role, where trained networks read these and not pictures.

  Args:
    config: ``trained`` of the section decides: "head" leaves the backbone as it is.
    section: Of the networks' training.
    roles: From `backbone_stages`.
  """
  if config[section].trained != "head" or "features" not in roles:
    return {}
  require_one_side(config, f"{section}.trained is 'head'")
  return {"features": roles["features"]}


def codes_of(config: ConfigDict, title: str) -> CodeSource:
  """Codes of images by the method itself."""
  return CodeSource(title, {"image": (f"encode_{config.bits}bits", "codes")})


def pair_codes_of(config: ConfigDict, title: str) -> CodeSource:
  """Codes of pairs by the method itself."""
  stage = f"encode_{config.bits}bits"
  return CodeSource(title, {side: (stage, f"{side}_codes") for side in ("image", "text")})


def pair_network_plan(config: ConfigDict, title: str, section: str, training: Stage) -> Plan:
  """A method that trains both networks of pairs in one stage: its stages and its row.

  Args:
    config: Of pairs, see `udh_jax.methods.defaults.on_pairs`.
    title: Of the row.
    section: Of the training's fields.
    training: The stage, whose name the network has with the number of bits.
  """
  before, roles = backbone_stages(config)
  network = f"{training.name}_{config.bits}bits"
  stages = (
    *before,
    training.named(network, **roles),
    encode_pairs_stage(config, network, **cached_features(config, section, roles)),
  )
  return Plan(title, stages, network, (pair_codes_of(config, title),))


def baselines_of(
  config: ConfigDict, name: str = "baselines", words: str = ""
) -> tuple[CodeSource, ...]:
  """Codes of the baselines, the strongest first.

  Args:
    config: ``bits`` is read.
    name: As of `baselines_stage`.
    words: What is added to their titles.
  """
  stage = f"{name}_{config.bits}bits"
  return tuple(
    CodeSource(title + words, {"image": (stage, key)}) for key, title in BASELINE_TITLES.items()
  )


def enough_are_confident(cluster: ConfigDict) -> Callable[[Dataset], None]:
  """A check that as many training images as clusters are within the threshold."""

  def check(dataset):
    available = len(dataset.splits.train)
    require(
      available >= cluster.num_clusters,
      f"cluster.num_clusters is {cluster.num_clusters}, but there are {available} training images; "
      "lower it or give more images.",
    )
    confident_count(available, cluster.threshold_quantile, cluster.num_clusters)

  return check


def sizes_can_be_met(cluster: ConfigDict) -> Callable[[Dataset], None]:
  """A check that the training images can be shared out among clusters of the sizes asked for."""
  enough = enough_are_confident(cluster)

  def check(dataset):
    enough(dataset)
    rows = len(dataset.splits.train)
    require_sizes(
      "cluster", cluster.num_clusters, cluster.min_size or None, cluster.max_size or None, rows
    )

  return check


def require_readable_sides(config: ConfigDict) -> None:
  """Refuses sides of images that the backbone cannot read, before any work is done.

  Args:
    config: All ``image_size`` and ``image_sizes`` but those of ``data`` are read.

  Raises:
    InputError: If one is too small, or no multiple of the patch.
  """
  for field, value in flatten(config).items():
    section, _, name = field.rpartition(".")
    if section != "data" and name in ("image_size", "image_sizes"):
      backbone = config[section].get("backbone", config.teacher.backbone)
      for size in value if name == "image_sizes" else (value,):
        require_side(backbone, field, size)


def require_one_side(config: ConfigDict, why: str) -> None:
  """Refuses several sides where features are made once.

  Args:
    config: ``features.image_sizes`` is read.
    why: What makes them so.

  Raises:
    InputError: If there is not one.
  """
  sizes = tuple(config.features.image_sizes)
  require(
    len(sizes) == 1,
    f"features.image_sizes is {sizes}, but {why}: features are made once, at one side; give one.",
  )


def require_enough_features(
  config: ConfigDict, otherwise: str = "", *, field: str = "bits"
) -> None:
  """Refuses codes that are longer than a network has features, where ITQ or PCA makes them.

  Args:
    config: ``field`` and ``teacher.backbone`` are read.
    otherwise: The setting that does without, if there is one.
    field: Of the length.

  Raises:
    InputError: If so.
  """
  width = create_backbone(config.teacher.backbone).feature_dim
  require(
    config[field] <= width,
    f"{field} is {config[field]}, but {config.teacher.backbone} has only {width} features, and ITQ "
    f"and PCA make at most one bit of each; ask for fewer bits{otherwise and ', or set '}"
    f"{otherwise}.",
  )
