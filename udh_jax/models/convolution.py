"""Convolutions, with the implementation chosen by platform in this one place."""

import functools

import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require

PADDINGS = ("symmetric", "same")


def explicit_padding(size: int, window: int, stride: int, padding: str) -> tuple[int, int]:
  """Rows to add before and after one axis.

  Args:
    size: Length of the axis.
    window: Length of the kernel along it.
    stride: Step of the kernel.
    padding: "symmetric" pads both sides alike, whatever the size (PyTorch); "same" pads just
      enough, the odd row at the end (TensorFlow). They differ only where the stride exceeds 1.

  Returns:
    The two counts.
  """
  if padding == "symmetric":
    return (window - 1) // 2, (window - 1) // 2
  total = max((-(-size // stride) - 1) * stride + window - size, 0)
  return total // 2, total - total // 2


def convolve(images, kernel, *, stride: int = 1, padding: str = "symmetric"):
  """Convolves images with a dense or a depthwise kernel.

  On accelerators this is XLA's convolution. XLA's CPU convolutions are slow where small networks
  spend their time, so there a depthwise kernel becomes shifted multiply-adds, and every other
  kernel a matrix product; the gradients are written out for the same reason.

  Args:
    images: Array of shape ``[b, h, w, c]``.
    kernel: Array of shape ``[kh, kw, c, d]``, or ``[kh, kw, 1, c]`` for a depthwise one
      (``c > 1``). Same dtype as ``images``.
    stride: Step along both axes.
    padding: "symmetric" or "same"; see `explicit_padding`.

  Returns:
    Array of shape ``[b, ceil(h / stride), ceil(w / stride), d]``.

  Raises:
    InputError: If the shapes do not fit or the padding is unknown.
  """
  require(padding in PADDINGS, f"padding {padding!r} is unknown; choose one of {PADDINGS}.")
  require(
    images.ndim == 4 and kernel.ndim == 4,
    f"images {images.shape} and kernel {kernel.shape}: both need 4 axes, [b, h, w, c] and "
    "[kh, kw, c, d].",
  )
  channels = images.shape[-1]
  depthwise = kernel.shape[2] == 1 and kernel.shape[3] == channels and channels > 1
  require(
    depthwise or kernel.shape[2] == channels,
    f"kernel {kernel.shape} does not fit images {images.shape}: it reads {kernel.shape[2]} "
    f"channels of {channels}.",
  )
  pads = tuple(
    explicit_padding(size, window, stride, padding)
    for size, window in zip(images.shape[1:3], kernel.shape[:2], strict=True)
  )
  return lax.platform_dependent(
    images,
    kernel,
    cpu=functools.partial(_on_cpu, stride=stride, pads=pads, depthwise=depthwise),
    default=functools.partial(_plain, stride=stride, pads=pads, depthwise=depthwise),
  )


def _plain(images, kernel, *, stride, pads, depthwise):
  return lax.conv_general_dilated(
    images,
    kernel,
    (stride, stride),
    pads,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=images.shape[-1] if depthwise else 1,
  )


def _on_cpu(images, kernel, *, stride, pads, depthwise):
  if depthwise:
    windows = _windows(images, kernel.shape[:2], stride, pads)
    taps = kernel.reshape(-1, kernel.shape[-1])
    return sum(window * tap for window, tap in zip(windows, taps, strict=True))
  if kernel.shape[:2] == (1, 1):
    (patches,) = _windows(images, (1, 1), stride, ((0, 0), (0, 0)))
  else:
    patches = jnp.concatenate(_windows(images, kernel.shape[:2], stride, pads), axis=-1)
  rows = patches.reshape(-1, patches.shape[-1])
  product = rows @ kernel.reshape(-1, kernel.shape[-1])
  return product.reshape(*patches.shape[:3], -1)


def _windows(images, window, stride, pads):
  """The images as each tap of the kernel sees them, kernel row by row."""
  padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
  height, width = (
    (size - length) // stride + 1 for size, length in zip(padded.shape[1:3], window, strict=True)
  )
  return [
    padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
    for i in range(window[0])
    for j in range(window[1])
  ]
