"""Eight simulated CPU devices for every test, so that each kernel is tested on a mesh."""

import functools
import os
import pathlib
from importlib.metadata import version

# Most programs run once here, so that compiling them takes longer than running them: LLVM's part of
# it is left out (a third of the time), XLA's own passes are not, and loops are written by the
# older, quicker emitters (half of the rest). A flag that XLA does not know ends the program, so
# that this one is given to the release it was tried with alone.
os.environ["XLA_FLAGS"] = (
  ("--xla_cpu_use_fusion_emitters=false " if version("jaxlib").startswith("0.10.") else "")
  + "--xla_backend_optimization_level=0 "
  + os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Each run of a stage compiles anew, though most have compiled the same before, in any process.
os.environ.setdefault(
  "JAX_COMPILATION_CACHE_DIR",
  str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "xla"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# As the programs do for themselves; pytest-xdist and programs that tests start inherit it.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import numpy as np
import pytest

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def rng():
  return np.random.default_rng(0)


@pytest.fixture
def mesh():
  assert jax.device_count() == 8
  return jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


@pytest.fixture
def shared():
  """The folder of real data and weights beside the project; absent at a user's."""
  if not SHARED.is_dir():
    pytest.skip(f"real data and weights are not at {SHARED}")
  return SHARED


@functools.cache
def _small_encoder(seed, image_size, picture_size):
  from udh_jax.encoders.image import Encoder
  from udh_jax.models.registry import create_backbone

  module = create_backbone("small_convnet")
  image = np.zeros((1, image_size, image_size, 3), np.float32)
  kernel = jax.random.normal(jax.random.key(seed), (module.feature_dim, 12))
  variables = {
    "backbone": jax.jit(module.init)(jax.random.key(0), image),
    "hash": {"kernel": kernel, "bias": np.zeros(12, np.float32)},
  }
  about = {
    "backbone": "small_convnet",
    "padding": "symmetric",
    "dtype": "float32",
    "image_size": image_size,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "bits": 12,
    "picture_size": picture_size,
    "labels_used": "none",
    "method": "test",
    "scores": {"test": 0.5},
  }
  return Encoder(variables, about)


@pytest.fixture(scope="session")
def small_encoder():
  """Makes an encoder with random weights: pictures of 24 x 24, read at 16 x 16, to 12 bits."""

  def make(seed=1, *, image_size=16, picture_size=24):
    return _small_encoder(seed, image_size, picture_size)

  return make


@pytest.fixture
def failing(capsys):
  """Runs a program that has to end by one clear line, and returns that line."""

  def run(main, arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
      main(arguments)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line

  return run
