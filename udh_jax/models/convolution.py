"""Convolutions, with the implementation chosen by platform in this one place."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require

PADDINGS = ("symmetric", "same")
_LIMITS = {"linear": None, "relu": (0, jnp.inf), "relu6": (0, 6)}


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


def convolve(
  images: jax.Array,
  kernel: jax.Array,
  bias: jax.Array,
  *,
  stride: int = 1,
  padding: str = "symmetric",
  activation: str = "linear",
) -> jax.Array:
  """Convolves images with a dense or a depthwise kernel, adds a bias, applies an activation.

  On accelerators this is XLA's convolution. XLA's CPU convolutions are slow where small networks
  spend their time, so there a depthwise kernel becomes shifted multiply-adds, a 1 x 1 kernel a
  matrix product, one that is larger than the images a few of them, and their gradients are written
  out. Both ways give the same numbers.

  Args:
    images: Array of shape ``[b, h, w, c]``.
    kernel: Array of shape ``[kh, kw, c, d]``, or ``[kh, kw, 1, c]`` for a depthwise one
      (``c > 1``). Same dtype as ``images``.
    bias: Array of shape ``[d]``. Same dtype as ``images``.
    stride: Step along both axes.
    padding: "symmetric" or "same"; see `explicit_padding`.
    activation: "linear", "relu", or "relu6", which clips to [0, 6]; their gradient is 0 at the
      kinks.

  Returns:
    Array of shape ``[b, ceil(h / stride), ceil(w / stride), d]``.

  Raises:
    InputError: If the shapes do not fit, or the padding or the activation is unknown.
  """
  require(padding in PADDINGS, f"padding {padding!r} is unknown; choose one of {PADDINGS}.")
  require(
    activation in _LIMITS,
    f"activation {activation!r} is unknown; choose one of {tuple(_LIMITS)}.",
  )
  require(
    images.ndim == 4 and kernel.ndim == 4 and bias.shape == kernel.shape[-1:],
    f"images {images.shape}, kernel {kernel.shape}, bias {bias.shape}: expected [b, h, w, c], "
    "[kh, kw, c, d] and [d].",
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
  kernel, bias = _vary_like(kernel, images), _vary_like(bias, images)
  return _convolve(images, kernel, bias, stride, pads, activation)


def _vary_like(array, images):
  """The same values, typed inside `jax.shard_map` as differing between devices, as the images do.

  Then the gradient of a replicated array is summed over the devices. JAX does so by itself for
  its own operations, not for a hand-written gradient. The choice costs nothing once compiled.
  """
  return jnp.where(jnp.isnan(images.ravel()[:1]).any(), array, array)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _convolve(images, kernel, bias, stride, pads, activation):
  options = {"stride": stride, "pads": pads, "activation": activation}
  return lax.platform_dependent(
    images,
    kernel,
    bias,
    cpu=functools.partial(_activated, _forward_on_cpu, **options),
    default=functools.partial(_activated, _plain, **options),
  )


def _convolve_forward(images, kernel, bias, stride, pads, activation):
  options = {"stride": stride, "pads": pads, "activation": activation}
  result = lax.platform_dependent(
    images,
    kernel,
    bias,
    cpu=functools.partial(_apart, functools.partial(_activated, _forward_on_cpu, **options)),
    default=functools.partial(_activated, _plain, **options),
  )
  return result, (images, kernel, None if activation == "linear" else result)


def _activated(convolution, images, kernel, bias, *, stride, pads, activation):
  result = convolution(images, kernel, bias, stride=stride, pads=pads)
  return result if _LIMITS[activation] is None else jnp.clip(result, *_LIMITS[activation])


def _convolve_backward(stride, pads, activation, residuals, cotangent):
  images, kernel, result = residuals
  options = {"stride": stride, "pads": pads}
  if result is not None:
    low, high = _LIMITS[activation]
    cotangent = jnp.where((result > low) & (result < high), cotangent, 0)
  return lax.platform_dependent(
    images,
    kernel,
    cotangent,
    cpu=functools.partial(_apart, functools.partial(_backward_on_cpu, **options)),
    default=functools.partial(_plain_backward, **options),
  )


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _apart(function, images, kernel, last):
  """Runs a function so that XLA compiles it by itself; for training, where results are used often.

  XLA's CPU fusion otherwise repeats it in every consumer of its result, and what it reads in every
  tap: a training step of a block of MobileNetV2 took two to three times as long. Optimization
  barriers are gone before fusion; a branch of a condition that is not known then stays. A kernel
  that is not finite takes the other branch, whose result is not a number either. XLA's own
  convolutions are not fused anyway, and are 25 times slower in a branch.
  """

  def refuse(*arguments):
    return jax.tree.map(
      lambda leaf: jnp.full_like(leaf, jnp.nan), jax.eval_shape(function, *arguments)
    )

  if _is_xlas(images, kernel):
    return function(images, kernel, last)
  return lax.cond(jnp.isfinite(kernel.ravel()[0]), function, refuse, images, kernel, last)


def _plain(images, kernel, bias, *, stride, pads):
  product = lax.conv_general_dilated(
    images,
    kernel,
    (stride, stride),
    pads,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=images.shape[-1] // kernel.shape[2],
  )
  return product + bias


def _plain_backward(images, kernel, cotangent, *, stride, pads):
  bias = jnp.zeros_like(cotangent, shape=cotangent.shape[-1:])
  forward = functools.partial(_plain, stride=stride, pads=pads)
  return jax.vjp(forward, images, kernel, bias)[1](cotangent)


def _is_depthwise(images, kernel):
  return kernel.shape[2] != images.shape[-1]


def _is_xlas(images, kernel):
  """Whether XLA's CPU convolution is the fastest: of dense kernels within the images, not 1 x 1.

  A training step of 3 x 3 kernels, 128 to 128 channels, takes it 184 ms on 512 images of 2 x 2, and
  products 18; 40 ms on 4 x 4 with 64 channels, and products 47.
  """
  within = kernel.shape[0] <= images.shape[1] and kernel.shape[1] <= images.shape[2]
  return not _is_depthwise(images, kernel) and kernel.shape[:2] != (1, 1) and within


def _forward_on_cpu(images, kernel, bias, *, stride, pads):
  if _is_xlas(images, kernel):
    return _plain(images, kernel, bias, stride=stride, pads=pads)
  windows = _windows(images, kernel.shape[:2], stride, pads)
  if _is_depthwise(images, kernel):
    taps = kernel.reshape(-1, kernel.shape[-1])
    return sum(window * tap for window, tap in zip(windows, taps, strict=True)) + bias
  taps = kernel.reshape(-1, *kernel.shape[2:])
  return sum(window @ tap for window, tap in zip(windows, taps, strict=True)) + bias


def _backward_on_cpu(images, kernel, cotangent, *, stride, pads):
  bias_gradient = _sum_positions(cotangent)
  if _is_xlas(images, kernel):
    gradients = _plain_backward(images, kernel, cotangent, stride=stride, pads=pads)
    return *gradients[:2], bias_gradient
  windows = _windows(images, kernel.shape[:2], stride, pads)
  if _is_depthwise(images, kernel):
    kernel_gradient = jnp.stack([_sum_positions(window, cotangent) for window in windows])
  else:
    channels = images.shape[-1]
    rows = cotangent.reshape(-1, cotangent.shape[-1])  # [b h w, d]
    kernel_gradient = jnp.stack([window.reshape(-1, channels).T @ rows for window in windows])
  images_gradient = _images_gradient(images, kernel, cotangent, stride, pads)
  return images_gradient, kernel_gradient.reshape(kernel.shape), bias_gradient


def _windows(images, window, stride, pads):
  """The images as each tap of the kernel sees them, kernel row by kernel row."""
  padded = jnp.pad(images, ((0, 0), *pads, (0, 0)))
  height, width = (
    (size - length) // stride + 1 for size, length in zip(padded.shape[1:3], window, strict=True)
  )
  return [
    padded[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
    for i in range(window[0])
    for j in range(window[1])
  ]


def _images_gradient(images, kernel, cotangent, stride, pads):
  """Gradient for the images, one phase of the stride at a time.

  Images at position p + stride * a met tap i at output a + (p + before - i) / stride, where that
  divides. So each phase is a convolution of the cotangent with every stride-th tap.
  """
  heights, widths = (
    [_taps(phase, window, stride, before) for phase in range(stride)]
    for window, (before, _) in zip(kernel.shape[:2], pads, strict=True)
  )
  counts = [-(-size // stride) for size in images.shape[1:3]]
  margins = [
    (
      max(0, *(-shift for taps in axis for _, shift in taps)),
      max(0, *(count + shift - size for taps in axis for _, shift in taps)),
    )
    for axis, count, size in zip((heights, widths), counts, cotangent.shape[1:3], strict=True)
  ]
  padded = jnp.pad(cotangent, ((0, 0), *margins, (0, 0)))
  phases = []
  for rows in heights:
    for columns in widths:
      windows = [
        (padded[:, top : top + counts[0], left : left + counts[1]], kernel[i, j])
        for i, top in ((tap, shift + margins[0][0]) for tap, shift in rows)
        for j, left in ((tap, shift + margins[1][0]) for tap, shift in columns)
      ]
      if not windows:
        phases.append(jnp.zeros_like(images, shape=(len(images), *counts, images.shape[-1])))
      elif _is_depthwise(images, kernel):
        phases.append(sum(window * tap[0] for window, tap in windows))
      else:
        phases.append(sum(window @ tap.T for window, tap in windows))
  if stride == 1:
    return phases[0]
  grid = jnp.stack(phases, axis=3).reshape(len(images), *counts, stride, stride, -1)
  whole = grid.transpose(0, 1, 3, 2, 4, 5)
  whole = whole.reshape(len(images), stride * counts[0], stride * counts[1], -1)
  return whole[:, : images.shape[1], : images.shape[2]]


def _taps(phase, window, stride, before):
  """Taps that meet a phase of the images, each with its shift of the output."""
  return [
    (tap, (phase + before - tap) // stride)
    for tap in range(window)
    if (phase + before - tap) % stride == 0
  ]


def _sum_positions(values, weights=None):
  """Sum of values (times weights) over images and positions: ``[b, h, w, c]`` to ``[c]``.

  XLA's CPU reductions over the leading axes are not vectorised. Sums of a few slices are, and
  the rest is a matrix product.
  """
  height = values.shape[1]
  groups = max(count for count in range(1, 9) if height % count == 0) if weights is not None else 1
  slices = values.reshape(len(values), groups, -1, *values.shape[2:])
  if weights is not None:
    weights = weights.reshape(slices.shape)
    slices = slices * weights
  partial = sum(slices[:, group] for group in range(groups)).reshape(-1, values.shape[-1])
  return (jnp.ones((1, len(partial)), values.dtype) @ partial)[0]
