import subprocess
import sys
import types

import pytest

from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError


def config_of(name, **fields):
  config = data_config(name)
  config.update(fields)
  return config


def test_importing_the_room_loads_no_heavy_library():
  heavy = ["tensorflow", "tensorflow_datasets", "grain", "sklearn", "PIL", "h5py"]
  rooms = "from udh_jax.data import augmentation, loader, protocol, registry"
  code = f"{rooms}; import sys; assert not set({heavy}) & set(sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_lists_the_known_ones():
  for make in (lambda: data_config("mnist"), lambda: load_dataset(types.SimpleNamespace(name="x"))):
    with pytest.raises(
      InputError, match=r"known ones are digits, cifar10, svhn, eurosat, flickr25k, folder"
    ):
      make()


@pytest.mark.parametrize(
  ("field", "value"),
  [("evaluate_on", "test"), ("num_queries", -1), ("seed", -3), ("num_train", 2.5)],
)
def test_an_invalid_field_is_named(field, value):
  config = types.SimpleNamespace(name="digits", **{field: value})
  with pytest.raises(InputError, match=f"data field {field} is"):
    load_dataset(config)


def test_the_seed_decides_the_splits():
  first, again, other = (load_dataset(config_of("digits", seed=seed)) for seed in (4, 4, 5))
  assert first.digest == again.digest != other.digest


def test_a_plain_object_will_do_for_a_config():
  dataset = load_dataset(types.SimpleNamespace(name="digits", num_queries=17))
  assert len(dataset.splits.query) == 17
