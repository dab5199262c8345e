import importlib.util

import pytest

from udh_jax.cpu import choice


@pytest.fixture(params=["jax", "numba"])
def each_kernel(request):
  """Runs a test with the kernels of JAX and with those of numba."""
  if request.param == "numba" and importlib.util.find_spec("numba") is None:
    pytest.skip("numba is not installed")
  with choice.kernels(request.param):
    yield request.param
