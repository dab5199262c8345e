"""Whether one picture is a copy of another: laid over each other, do they agree everywhere?"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.numerics import matmul

SIDE = 64  # pixels of a side of the views that are compared
_LEVELS = (16, 32, 64)  # coarse to fine
_STEPS = 8  # Gauss-Newton steps at each level
_STARTS = (1.0, 0.92, 1.09)  # size of the second in units of the first
_BLOCKS = 8  # blocks a side


class Agreement(NamedTuple):
  """How well pairs of pictures agree once one is laid over the other.

  Attributes:
    whole: Correlation of what both show, in [-1, 1]. float32 array of shape ``[n]``.
    blocks: Share of the blocks with some detail in which they correlate. float32 ``[n]``.
    detail: How many of the 64 blocks have some detail in either picture. int32 ``[n]``.
    overlap: Share of the first picture that the second shows. float32 ``[n]``.
    scales: Size of the second in units of the first, across and down. float32 ``[n, 2]``.
    shifts: Where the second's middle lies, in sides of the first. float32 ``[n, 2]``.
  """

  whole: jax.Array
  blocks: jax.Array
  detail: jax.Array
  overlap: jax.Array
  scales: jax.Array
  shifts: jax.Array


@functools.partial(jax.jit, static_argnames="align")
def agreement(first: jax.Array, second: jax.Array, *, align: bool = True) -> Agreement:
  """Lays the second picture of each pair over the first and compares them there.

  The second is stretched and shifted across and down (four numbers) and its brightness and contrast
  are fitted (two numbers) by Gauss-Newton steps on the squared difference, from coarse views to
  fine ones. So a copy agrees that was scaled, cut at its borders by up to an eighth or brightened;
  one that was turned or mirrored does not: give it turned back.

  Args:
    first: Grey pictures, each stretched to a square, values in 0..255. Array ``[n, 64, 64]``.
    second: The same of the others.
    align: False compares them as they are.

  Returns:
    An `Agreement`.

  References:
    Lucas and Kanade, An iterative image registration technique, IJCAI 1981, for the steps; the
    model of the distortion and the scores are our own.
  """
  first, second = (jnp.asarray(x, jnp.float32) / 255 for x in (first, second))
  # Position in the second = scale * position in the first + shift, both in [-1, 1].
  starts = jnp.array([[scale, scale, 0.0, 0.0] for scale in _STARTS])
  parameters = jnp.broadcast_to(starts, (first.shape[0], *starts.shape))
  for side in _LEVELS if align else ():
    a, b = (_shrunk(x, side) for x in (first, second))
    parameters = jax.vmap(functools.partial(_improved, side=side))(parameters, a, b)
  warped, inside = jax.vmap(functools.partial(_warped, side=SIDE))(parameters[:, 0], second)
  whole, blocks, detail = jax.vmap(_scores)(first, warped, inside)
  overlap = inside.mean(axis=(1, 2))
  return Agreement(whole, blocks, detail, overlap, parameters[:, 0, :2], parameters[:, 0, 2:] / 2)


def _improved(starts, first, second, *, side):
  """The best of some parameters [s, 4] and of what steps lead to from each: [1, 4]."""
  steps = functools.partial(_step, first=first, second=second, side=side)
  ends = jax.vmap(lambda start: lax.fori_loop(0, _STEPS, lambda _, p: steps(p), start))(starts)
  tried = jnp.concatenate([starts, ends])

  def score(parameters):
    warped, inside = _warped(parameters, second, side=side)
    return _correlation(first, warped, inside.astype(jnp.float32), 1e-5)[0]

  return tried[jnp.argmax(jax.vmap(score)(tried))][None]


def _shrunk(pictures, side):
  num, full, _ = pictures.shape
  factor = full // side
  return pictures.reshape(num, side, factor, side, factor).mean(axis=(2, 4))


def _rows_of(scale, shift, side):
  """Matrix [side, side] that interpolates values at scale * x + shift, and where that is inside."""
  centres = (2 * jnp.arange(side) + 1) / side - 1
  place = ((scale * centres + shift + 1) * side - 1) / 2
  weights = jnp.maximum(0, 1 - jnp.abs(place[:, None] - jnp.arange(side)[None]))
  return weights, (place >= -0.25) & (place <= side - 0.75)


def _warped(parameters, picture, *, side):
  across, inside_x = _rows_of(parameters[0], parameters[2], side)
  down, inside_y = _rows_of(parameters[1], parameters[3], side)
  inside = inside_y[:, None] & inside_x[None]
  return matmul(matmul(down, picture), across.T), inside


def _step(parameters, *, first, second, side):
  warped, inside = _warped(parameters, second, side=side)
  weight = inside.astype(jnp.float32)
  contrast, residual = _fitted(first, warped, weight)
  # What disagrees most (letters put over a picture, whites that were cut off) counts least.
  usual = (jnp.abs(residual) * weight).sum() / jnp.maximum(weight.sum(), 1e-6) + 1e-3
  weight = weight / (1 + (residual / (2 * usual)) ** 2)
  centres = (2 * jnp.arange(side) + 1) / side - 1
  dy, dx = (jnp.gradient(warped, axis=axis) * side / 2 for axis in (0, 1))  # by place in the first
  dx, dy = dx / parameters[0], dy / parameters[1]  # by place in the second
  moves = contrast * jnp.stack([dx * centres[None], dy * centres[:, None], dx, dy], axis=-1)
  columns = jnp.concatenate([moves, warped[..., None], jnp.ones_like(warped)[..., None]], axis=-1)
  columns = columns.reshape(-1, 6)
  weighted = columns * weight.reshape(-1, 1)
  gram = matmul(weighted.T, columns)
  target = matmul(weighted.T, residual.reshape(-1))
  gram += jnp.diag(1e-4 * jnp.diag(gram) + 1e-6)
  moved = jnp.clip(jnp.linalg.solve(gram, target)[:4], -0.1, 0.1)
  new = parameters + moved
  limits = jnp.array([1.25, 1.25, 0.25, 0.25])
  lowest = jnp.array([0.8, 0.8, -0.25, -0.25])
  return jnp.clip(jnp.where(jnp.isfinite(new), new, parameters), lowest, limits)


def _fitted(first, warped, weight):
  """Contrast of the first in units of the second, and what is left when it is fitted."""
  total = jnp.maximum(weight.sum(), 1e-6)
  a, b = (x - (x * weight).sum() / total for x in (first, warped))
  contrast = (a * b * weight).sum() / ((b * b * weight).sum() + 1e-4)
  contrast = jnp.clip(contrast, 0.3, 3.0)
  return contrast, a - contrast * b


def _correlation(a, b, weight, least):
  total = jnp.maximum(weight.sum(), 1e-6)
  a, b = (x - (x * weight).sum() / total for x in (a, b))
  saa, sbb, sab = ((x * y * weight).sum() / total for x, y in ((a, a), (b, b), (a, b)))
  # Noise of `least` on both sides: where neither has any detail, they agree.
  return (sab + least) / jnp.sqrt((saa + least) * (sbb + least)), (saa, sbb)


def _scores(first, warped, inside):
  weight = inside.astype(jnp.float32)
  whole, _ = _correlation(first, warped, weight, 1e-5)
  side = SIDE // _BLOCKS

  def cut(x):
    blocks = x.reshape(_BLOCKS, side, _BLOCKS, side).transpose(0, 2, 1, 3)
    return blocks.reshape(_BLOCKS * _BLOCKS, side, side)

  score, variances = jax.vmap(_correlation, in_axes=(0, 0, 0, None))(
    cut(first), cut(warped), cut(weight), 1e-5
  )
  # What only one of the two shows is a difference, whichever comes first.
  counted = (cut(weight).mean(axis=(1, 2)) > 0.5) & (jnp.maximum(*variances) > 4e-4)
  agree = (counted & (score > 0.7)).sum()
  return whole, agree / jnp.maximum(counted.sum(), 1), counted.sum()
