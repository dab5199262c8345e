"""Every field of every preset, set to what it must not be: refused at the start, in one line."""

import functools
import math

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ml_collections import ConfigDict
from presets import every_preset, load

from udh_jax.configuration import flatten, override
from udh_jax.errors import InputError
from udh_jax.methods import automatic, fields
from udh_jax.methods.run import require_valid

HUGE = 10**18
# Where 0 means something. Written down by hand: the check must not be its own oracle.
ZERO = {
  "seed", "data.seed", "data.num_queries", "data.num_validation", "data.num_train",
  "cluster.min_size", "cluster.max_size", "djsrh.bits", "score.at", "structure.deviations",
  "student.sweeps", "loss.margin", "psch.apart", "similarity.image_share",
  "similarity.cross_share", "djsrh.beta", "djsrh.eta", "djsrh.within_weight",
  "loss.annealing_start", "loss.annealing_rate", "loss.annealing_least",
  "distill.confidence_power", "finetune.label_smoothing", "ucch.margin", "ucch.contrast_share",
  "ucch.shift", "data.held_out", "djsrh.directions", "student.directions", "ucch.directions",
  "contrast.directions",
}  # fmt: skip
ZERO_ENDINGS = (
  "rate", "_weight", "weight_decay", "momentum", "dropout", "padding", "color", "grayscale",
  "cutout",
)  # fmt: skip
MINUS_ONE = {"psch.apart"}
# Names of files, arrays and repositories: any text may be one.
FREE_TEXT = {
  "teacher.weights", "data.path", "data.image", "data.text", "data.label", "data.image_test",
  "data.text_test", "data.label_test", "data.labels_used", "data.items_in_columns",
  "data.train_items", "data.test_items", "data.folder", "data.image_column", "data.text_column",
  "data.label_column", "data.label_separator", "data.split_column", "data.text_features",
}  # fmt: skip
OTHER_WORDS = {("data.count_from", "1")}  # edges that happen to be words of the field
# One preset a method and a kind of data: others have the same fields.
PRESETS = list({
  (load(*preset).method, load(*preset).data.name): preset for preset in every_preset()
}.values())  # fmt: skip


@functools.cache
def loaded(preset):
  return load(*preset)


def refusal(preset, field, value, *, typed):
  """The line that refuses a preset with a field set so; None if it is accepted.

  `typed` sets it as the command line does, which looks at types; else as Python can.
  """
  config = loaded(preset).copy_and_resolve_references()
  try:
    if typed:
      config = override(config, {field: value})
    else:
      config = with_field(config.to_dict(), field, value)
    require_valid(config)
  except InputError as error:
    return str(error)
  return None


def with_field(values, field, value):
  """A configuration as Python can make it, whatever types its preset has."""
  *sections, last = field.split(".")
  section = values
  for name in sections:
    section = section[name]
  section[last] = value
  return ConfigDict(values)


def require_one_clear_line(message, field):
  assert "\n" not in message and len(message) < 700, message
  names = ("data set", field) if field == "data.name" else (field.rpartition(".")[2],)
  assert any(name in message for name in names), (field, message)


def is_number(value):
  return isinstance(value, int | float) and not isinstance(value, bool)


def may_be(field, was, value):
  """Whether ``value`` can have a meaning; by the type that the field has, and the lists above."""
  if was == "auto":  # its type is open until the pictures are known
    if value == "auto":
      return True
    was = {"trained": "all", "image_sizes": [1]}.get(field.rpartition(".")[2], 1)
  if isinstance(was, bool):
    return isinstance(value, bool)
  if isinstance(was, str):
    return isinstance(value, str) and (field in FREE_TEXT or (field, value) in OTHER_WORDS)
  if isinstance(was, list):
    return isinstance(value, list | tuple) and all(is_number(item) and item > 0 for item in value)
  if not is_number(value) or not abs(value) <= (1e30 if isinstance(was, float) else 1e12):
    return False  # NaN too
  if field == "loss.margin":
    pass  # a whole number for some losses, which begin at 0
  elif isinstance(was, int) and not isinstance(value, int):
    return False
  if value == 0:
    return field in ZERO or field.endswith(ZERO_ENDINGS)
  return value > 0 or field in MINUS_ONE


def edges(was):
  """What clumsy hands put in the place of a value."""
  yield from (0, -1, HUGE, 0.5, -0.5, 1e300, math.nan, math.inf, -math.inf, 10**400)
  yield from (None, True, "", "1", (), (1,), (0, 1), (math.nan, 1.0), {"a": 1})
  if isinstance(was, str) and was:
    yield from (was[:-1], was + "x", was.upper() + " ", "none ")


def try_one(preset, field, value, *, typed):
  was = flatten(loaded(preset))[field]
  if value == was and type(value) is type(was):
    return
  message = refusal(preset, field, value, typed=typed)
  if message is not None:
    require_one_clear_line(message, field)
  else:
    assert may_be(field, was, value), f"{field} = {value!r} is accepted"


def test_every_field_of_every_preset_is_known():
  for preset in every_preset():
    for field in flatten(load(*preset)):
      known = field == "method" or field.startswith("data.") or fields.kind_of(field)
      assert known, f"{field} of {preset}"


def test_the_backbone_of_the_student_is_the_teachers_unless_it_is_set():
  config = override(load("udh_ecc", "cifar10"), {"teacher.backbone": "resnet18"})
  require_valid(automatic.provisional(config))
  assert automatic.provisional(config).student.backbone == "resnet18"
  other = override(config, {"student.backbone": "vit_small_patch16_224"})
  with pytest.raises(InputError, match="student's backbone is vit_small"):
    require_valid(automatic.provisional(other))


def test_every_preset_is_accepted():
  for preset in every_preset():
    require_valid(load(*preset))


def test_every_preset_is_accepted_as_the_pictures_decide():
  for preset in every_preset():
    for collection in (automatic.Collection(5, 1), automatic.Collection(10**7, 9000)):
      require_valid(automatic.resolve(load(*preset), collection)[0])


@pytest.mark.parametrize(
  ("preset", "values", "message"),
  [
    (("quickstart",), {"finetune.batch_size": 0}, "finetune.batch_size is 0; give a whole"),
    (("quickstart",), {"dtype": "float16"}, "dtype is 'float16'; give one of float32, bf"),
    (("quickstart",), {"bits": 129}, "bits is 129, but small_convnet has only 128 features"),
    (("quickstart",), {"student.backbone": "resnet18"}, "student.start is 'teacher', but"),
    (
      ("quickstart",),
      {"cluster.min_size": 9, "cluster.max_size": 8},
      "cluster.min_size is 9 and cluster.max_size 8",
    ),
    (("dhih", "digits_dhih_l_softmax"), {"loss.margin": 0}, "loss.margin is 0, expected a whole"),
    (("dhih", "digits_dhih_arcface"), {"loss.margin": 3.2}, "loss.margin is 3.2, expected 0 to"),
    (("dhih", "digits_dhih_scale"), {"loss.scale": 0.5}, "loss.scale is 0.5, expected 1 or more"),
    (("quickstart",), {"pretrain.trained": "head"}, "pretrain.trained is 'head', but teacher.wei"),
    (
      ("udh_ecc", "cifar10"),
      {"student.start": "random", "distill.trained": "last"},
      "distill.trained is 'last': what is not trained would stay random",
    ),
    (("ssdh", "cifar10"), {"structure.num_images": 46_341}, "a whole number from 2 to 46,340"),
    (("psch", "digits"), {"method": "psch "}, "method 'psch ' is unknown"),
    (("psch", "digits"), {"data.num_train": -1}, "data field num_train is -1; give a whole"),
  ],
)
def test_what_cannot_run_is_refused_at_the_start(preset, values, message):
  with pytest.raises(InputError) as error:
    require_valid(override(load(*preset), values))
  assert message in str(error.value)


def somewhere(draw):
  preset = draw(st.sampled_from(PRESETS))
  field = draw(st.sampled_from(sorted(flatten(loaded(preset)))))
  was = flatten(loaded(preset))[field]
  value = draw(
    st.one_of(
      st.sampled_from(list(edges(was))),
      st.integers(),
      st.floats(),
      st.text(max_size=8),
      st.lists(st.floats() | st.integers(), max_size=3).map(tuple),
      st.booleans(),
      st.none(),
    )
  )
  return preset, field, value


ANYWHERE = st.composite(somewhere)()
QUIETLY = {
  "deadline": None,
  "derandomize": True,
  "database": None,
  "phases": (Phase.generate, Phase.shrink),
  "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=200, **QUIETLY)
@given(ANYWHERE, st.booleans())
def test_any_value_is_refused_in_one_line_or_has_a_meaning(where, typed):
  try_one(*where, typed=typed)


@pytest.mark.slow
@pytest.mark.long
@settings(max_examples=3000, **QUIETLY)
@given(ANYWHERE, st.booleans())
def test_three_thousand_values_are_refused_in_one_line_or_have_a_meaning(where, typed):
  try_one(*where, typed=typed)


@pytest.mark.slow
@pytest.mark.long
def test_every_edge_of_every_field():
  first = {}  # preset that has the field, by field
  for preset in PRESETS:
    for field in flatten(loaded(preset)):
      first.setdefault(field, preset)
  for field, preset in first.items():
    for value in edges(flatten(loaded(preset))[field]):
      for typed in (True, False):
        try_one(preset, field, value, typed=typed)
