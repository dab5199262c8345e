"""Random crops, flips and colours on the device, each image by a key of its own.

A crop, its flip and the change of size are one resampling: two small matrix products an image. The
key of an image is made from its row number, so the result does not depend on which device holds the
image or what else is in the batch.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.errors import require, require_key

# Brightness of red, green and blue to the eye (ITU-R BT.601), as Pillow and torchvision weigh them.
_LUMA = (0.299, 0.587, 0.114)


def augment(
  key: jax.Array,
  images: jax.Array,
  index: jax.Array,
  *,
  size: int,
  crop_scale: tuple[float, float] = (1.0, 1.0),
  crop_ratio: tuple[float, float] = (1.0, 1.0),
  padding: float = 0.0,
  flip: bool = False,
  color: float = 0.0,
  grayscale: float = 0.0,
  cutout: float = 0.0,
) -> jax.Array:
  """Makes one random view of each image.

  Args:
    key: Random key of the step, the same on every device.
    images: Array of shape ``[b, h, w, 3]``, uint8.
    index: Row number of each image; image i uses the key ``fold_in(key, index[i])``. Integer array
      of shape ``[b]``.
    size: Side of the square views.
    crop_scale: Least and greatest area of the crop, as a part of the image's.
    crop_ratio: Least and greatest width of the crop over its height, drawn evenly in the logarithm.
      Sides longer than the (padded) image are cut to it.
    padding: How far crops may reach over each edge, as a part of the side; black lies there. A
      scale of (1, 1) and 1/8 is the usual pad-by-4 crop of CIFAR-10.
    flip: Whether half of the views are mirrored left to right. Wrong for digits and text.
    color: Strength s of the colour change: brightness, contrast and saturation are each multiplied
      by a number drawn from [1 - s, 1 + s], in this order. 0 to 1.
    grayscale: Part of the views that lose their colour. 0 to 1.
    cutout: Side of a grey square put over each view at a random place, as a part of ``size``; it
      may stand over the edge. 0 is none.

  Returns:
    Views of shape ``[b, size, size, 3]``, float32 in [0, 1].

  Raises:
    InputError: If a shape or an option is invalid.

  References:
    Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6 (random crops of area and
    ratio); DeVries and Taylor, Improved Regularization of CNNs with Cutout, 2017, section 3.2.
  """
  require_key("augment", key)
  _check_images(images, size)
  require(
    index.shape == images.shape[:1],
    f"index has shape {index.shape}, images {images.shape}: give one index for each image.",
  )
  for name, (low, high) in {"crop_scale": crop_scale, "crop_ratio": crop_ratio}.items():
    require(
      0 < low <= high, f"{name} is ({low}, {high}); give two numbers with 0 < least <= greatest."
    )
  options = {"padding": padding, "color": color, "grayscale": grayscale, "cutout": cutout}
  for name, value in options.items():
    require(0 <= value <= 1, f"{name} is {value}; give a number from 0 to 1.")

  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
  # One draw for everything: a number keeps its meaning when other options change.
  u = jax.vmap(lambda k: jax.random.uniform(k, (11,), jnp.float32))(keys).T  # [11, b]
  rows, columns = _random_boxes(u[:4], images.shape[1:3], crop_scale, crop_ratio, padding)
  mirrored = u[4] < 0.5 if flip else None
  images = images.astype(jnp.float32) / 255
  recolor = functools.partial(_recolor, u=u[5:9], color=color, grayscale=grayscale)
  # Colour and resampling are linear and may change places: colour goes where there are fewer pixels
  # (before enlarging 32 to 96 px this saves nine tenths of its time).
  if size**2 < images.shape[1] * images.shape[2]:
    views = _reduce(images, rows, columns, mirrored, size)
    if color or grayscale:
      even = jnp.full(views.shape[:2], 1 / size, jnp.float32)
      inside = (
        _inside(rows, images.shape[1], size)[:, :, None]
        & _inside(columns, images.shape[2], size, mirrored)[:, None]
      )
      views = recolor(views, even, even, inside=inside[..., None])
  else:
    rows = _weights(rows, images.shape[1], size, None)  # [b, size, h]
    columns = _weights(columns, images.shape[2], size, mirrored)  # [b, size, w]
    if color or grayscale:
      images = recolor(images, rows.mean(axis=1), columns.mean(axis=1))
    views = _resample(images, rows, columns)  # [b, size, size, 3]
  views = jnp.clip(views, 0, 1)
  return _cut_out(views, u[9:], cutout) if cutout else views


def resize(images: jax.Array, *, size: int) -> jax.Array:
  """Brings whole images to one size, for evaluation; the resampling is that of `augment`.

  Args:
    images: Array of shape ``[b, h, w, 3]``, uint8.
    size: Side of the result.

  Returns:
    Array of shape ``[b, size, size, 3]``, float32 in [0, 1]: bicubic, with antialiasing.

  Raises:
    InputError: If a shape is invalid.
  """
  _check_images(images, size)
  batch, height, width, _ = images.shape
  zero = jnp.zeros(batch, jnp.float32)
  rows, columns = (zero, zero + height), (zero, zero + width)
  images = images.astype(jnp.float32) / 255
  if size**2 < height * width:
    return jnp.clip(_reduce(images, rows, columns, None, size), 0, 1)
  rows = _weights(rows, height, size, None)
  columns = _weights(columns, width, size, None)
  return jnp.clip(_resample(images, rows, columns), 0, 1)


def normalise(
  images: jax.Array, mean: float | Sequence[float], std: float | Sequence[float]
) -> jax.Array:
  """Shifts and scales the channels to what a network was trained on.

  Args:
    images: Array of shape ``[..., 3]``, in [0, 1].
    mean: Mean of each channel, or one for all.
    std: Standard deviation of each channel, or one for all.

  Returns:
    Array like ``images``.

  Raises:
    InputError: If there are not three channels, or not one or three numbers.
  """
  for name, value in {"mean": mean, "std": std}.items():
    require(
      images.shape[-1] == 3 and np.shape(value) in ((), (3,)),
      f"images have shape {images.shape} and {name} {np.shape(value)}; give three channels, and "
      "one number or three.",
    )
  return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def _check_images(images, size):
  require(
    images.ndim == 4 and images.shape[-1] == 3 and images.dtype == jnp.uint8,
    f"images have shape {images.shape} and type {images.dtype}; [b, h, w, 3] and uint8 are needed.",
  )
  require(size >= 1, f"size is {size}; it has to be at least 1.")


def _random_boxes(u, image_shape, crop_scale, crop_ratio, padding):
  """Box of each crop in pixels: (top, height), (left, width), each of shape [b]."""
  scale = crop_scale[0] + u[0] * (crop_scale[1] - crop_scale[0])
  low, high = (math.log(ratio) for ratio in crop_ratio)
  ratio = jnp.exp(low + u[1] * (high - low))
  area = scale * image_shape[0] * image_shape[1]

  def place(side, image_side, u):
    border = padding * image_side
    side = jnp.minimum(side, image_side + 2 * border)
    return u * (image_side + 2 * border - side) - border, side

  return (
    place(jnp.sqrt(area / ratio), image_shape[0], u[2]),
    place(jnp.sqrt(area * ratio), image_shape[1], u[3]),
  )


def _centres(box, size, mirrored=None):
  """Where each result pixel lies, in source pixels, and their distance: [b, size], [b, 1]."""
  start, side = (value[:, None] for value in box)
  step = side / size
  position = jnp.arange(size)
  if mirrored is not None:
    position = jnp.where(mirrored[:, None], size - 1 - position, position)
  return start + (position + 0.5) * step - 0.5, step


def _inside(box, image_side, size, mirrored=None):
  """Whether each result pixel lies in the image, bool [b, size]."""
  centre, _ = _centres(box, size, mirrored)
  return (centre >= -0.5) & (centre <= image_side - 0.5)


def _weights(box, image_side, size, mirrored):
  """Weight of each source pixel (last axis) in each result pixel, one matrix an image.

  Keys' cubic (a = -1/2), stretched to a result pixel's width where that is more than a source
  pixel: cubic interpolation when enlarging, an average when reducing, as Pillow's BICUBIC. Result
  pixels outside the image are black.
  """
  centre, step = (value[..., None] for value in _centres(box, size, mirrored))
  x = jnp.abs(centre - jnp.arange(image_side)) / jnp.maximum(step, 1)  # [b, size, image_side]
  weights = jnp.where(x < 1, (1.5 * x - 2.5) * x**2 + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2)
  weights = jnp.where(x < 2, weights, 0)
  inside = _inside(box, image_side, size, mirrored)[..., None]
  # Inside the image at least one source pixel is at most half a pixel away: the sum is near 1.
  return jnp.where(inside, weights / jnp.maximum(weights.sum(-1, keepdims=True), 0.5), 0)


def _reduce(images, rows, columns, mirrored, size):
  """The same views as `_resample`, by JAX's own resampling: faster, but not where it enlarges.

  256 to 160 px takes three quarters of the time, 256 to 96 px half; 32 to 128 px would take 1.4
  times (docs/benchmarks.md).
  """
  start, side = (jnp.stack(pair, axis=1) for pair in zip(rows, columns, strict=True))  # [b, 2]
  resample = functools.partial(
    jax.image.scale_and_translate,
    shape=(size, size, images.shape[-1]),
    spatial_dims=(0, 1),
    method="cubic",
    precision=jax.lax.Precision.HIGHEST,
  )
  views = jax.vmap(lambda image, scale, start: resample(image, scale=scale, translation=start))(
    images, size / side, -start * size / side
  )
  return (
    views
    if mirrored is None
    else jnp.where(mirrored[:, None, None, None], views[:, :, ::-1], views)
  )


def _resample(images, rows, columns):
  """Two products an image: rows [b, size, h] and columns [b, size, w] on images [b, h, w, 3]."""
  # Columns first: on the CPU half the time of rows first at 224 px, as no copy is needed between.
  # "highest": accelerators would otherwise round the weights to bfloat16 or TF32.
  views = jnp.einsum("btw,bhwc->bthc", columns, images, precision="highest")
  return jnp.einsum("bsh,bthc->bstc", rows, views, precision="highest")


def _recolor(images, rows, columns, *, u, color, grayscale, inside=1.0):
  """Brightness, contrast, saturation; each mixes a view with black, its mean grey, its own grey.

  All three are linear, so they are one step. The share that each row [b, h] and column [b, w] has
  in the view is the weight of their pixels in its mean grey; none of that is added where ``inside``
  is 0.
  """
  brightness, contrast, saturation = (1 + color * (2 * u[:3] - 1))[..., None, None, None]
  saturation = jnp.where(u[3][:, None, None, None] < grayscale, 0.0, saturation)
  luma = jnp.array(_LUMA, images.dtype)
  grey = (images * luma).sum(-1, keepdims=True)  # [b, h, w, 1]
  mean = jnp.einsum("bh,bhwc,bw->b", rows, grey, columns, precision="highest")
  images = contrast * (grey + saturation * (images - grey))
  return brightness * (images + (1 - contrast) * inside * mean[:, None, None, None])


def _cut_out(views, u, cutout):
  """Puts a grey square over each view, its centre anywhere in the view."""
  size = views.shape[1]
  pixel = jnp.arange(size) + 0.5
  row, column = (jnp.abs(pixel - centre[:, None] * size) < cutout * size / 2 for centre in u)
  return jnp.where((row[:, :, None] & column[:, None, :])[..., None], 0.5, views)
