"""timm and its PyTorch, an oracle of the slow tests; see docs/backbones.md for how to get them."""

import pytest


@pytest.fixture(scope="session")
def timm():
  torch = pytest.importorskip("torch", reason="PyTorch is the oracle: pip install torch")
  try:
    import torchvision  # noqa: F401
  except ModuleNotFoundError:
    pytest.skip("timm needs torchvision: pip install torchvision")
  except RuntimeError:
    # torchvision from PyPI beside a PyTorch for the CPU: its compiled operators do not load, of
    # which importing it needs these two to be known. No network here calls them.
    for operator in ("nms", "qnms"):
      arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
      torch.library.define(f"torchvision::{operator}", arguments)
  return pytest.importorskip("timm", reason="timm is the oracle: pip install timm")
