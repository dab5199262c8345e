import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.errors import InputError
from udh_jax.models.convolution import convolve, explicit_padding

KERNELS = {
  "depthwise": (3, 3, 1, 5),
  "pointwise": (1, 1, 5, 4),
  "dense": (3, 3, 5, 4),
  "wide": (7, 7, 5, 3),
}


def explicit_loop(images, kernel, bias, stride, padding):
  """The definition, one output position at a time."""
  (height, width), (rows, columns) = images.shape[1:3], kernel.shape[:2]
  pads = [
    explicit_padding(size, window, stride, padding)
    for size, window in ((height, rows), (width, columns))
  ]
  padded = np.pad(images, ((0, 0), *pads, (0, 0)))
  depthwise = kernel.shape[2] == 1
  result = np.empty((len(images), -(-height // stride), -(-width // stride), kernel.shape[3]))
  for i, j in itertools.product(*map(range, result.shape[1:3])):
    patch = padded[:, stride * i : stride * i + rows, stride * j : stride * j + columns]
    subscripts = "bijc,ijc->bc" if depthwise else "bijc,ijcd->bd"
    result[:, i, j] = np.einsum(subscripts, patch, kernel[:, :, 0] if depthwise else kernel)
  return result + bias


def draw(rng, shape):
  return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 10), (1, 2)])
@pytest.mark.parametrize("kind", KERNELS)
def test_values_and_gradients_follow_the_definition(rng, kind, size, stride, padding):
  images = draw(rng, (3, *size, 5))
  kernel, bias = draw(rng, KERNELS[kind]), draw(rng, KERNELS[kind][-1])
  expected = explicit_loop(images, kernel, bias, stride, padding)
  weights = draw(rng, expected.shape)

  def weighted(images, kernel, bias):
    result = convolve(images, kernel, bias, stride=stride, padding=padding)
    return (result * weights).sum(), result

  gradients, result = jax.jit(jax.grad(weighted, argnums=(0, 1, 2), has_aux=True))(
    images, kernel, bias
  )
  np.testing.assert_allclose(result, expected, atol=2e-5)
  # Linear in each argument: the gradient times a direction is the result in that direction.
  for place, gradient in enumerate(gradients):
    arguments = [images, kernel, np.zeros_like(bias)]
    if place == 2:
      arguments[0] = np.zeros_like(images)
    arguments[place] = draw(rng, gradient.shape)
    change = (explicit_loop(*arguments, stride, padding) * weights).sum()
    np.testing.assert_allclose((gradient * arguments[place]).sum(), change, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("activation", "low", "high"), [("relu", 0, np.inf), ("relu6", 0, 6)])
@pytest.mark.parametrize("kind", KERNELS)
def test_activation_clips_and_stops_the_gradient_outside(rng, kind, activation, low, high):
  images, kernel, bias = draw(rng, (2, 7, 5, 5)), draw(rng, KERNELS[kind]), draw(rng, 1)
  bias = np.repeat(bias, kernel.shape[-1])
  linear = explicit_loop(images, kernel, bias, 1, "symmetric")
  assert (linear < low).any() and (linear > min(high, 6)).any()
  weights = draw(rng, linear.shape)
  inside = weights * ((linear > low) & (linear < high))

  def weighted(images, kernel, bias, weights, activation):
    result = convolve(images, kernel, bias, activation=activation)
    return (result * weights).sum(), result

  differentiate = jax.jit(
    jax.grad(weighted, argnums=(0, 1, 2), has_aux=True), static_argnames="activation"
  )
  gradients, result = differentiate(images, kernel, bias, weights, activation=activation)
  expected, _ = differentiate(images, kernel, bias, inside, activation="linear")
  np.testing.assert_allclose(result, np.clip(linear, low, high), atol=2e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), gradients, expected
  )


def test_accelerators_get_the_plain_convolution_with_the_same_numbers(rng):
  images, kernel = draw(rng, (2, 9, 9, 5)), draw(rng, (3, 3, 1, 5))
  apply = jax.jit(lambda images, kernel: convolve(images, kernel, jnp.zeros(5), stride=2))

  def text(platform):
    return jax.export.export(apply, platforms=[platform])(images, kernel).mlir_module()

  assert "stablehlo.convolution" in text("cuda")
  assert "stablehlo.convolution" in text("tpu")
  assert "stablehlo.convolution" not in text("cpu")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", KERNELS)
def test_both_implementations_agree(rng, monkeypatch, kind, stride):
  images, kernel = draw(rng, (2, 9, 8, 5)), draw(rng, KERNELS[kind])
  kernel /= np.sqrt(kernel[..., 0].size)
  bias = draw(rng, kernel.shape[-1])

  def run():
    def value(*arguments):
      return jnp.sin(convolve(*arguments, stride=stride)).sum()

    return jax.jit(jax.value_and_grad(value, argnums=(0, 1, 2)))(images, kernel, bias)

  here = run()
  monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), here, run())


def test_gradient_under_shard_map_is_the_gradient_of_the_whole_batch(rng, mesh):
  images, kernel, bias = draw(rng, (16, 6, 6, 4)), draw(rng, (3, 3, 1, 4)), draw(rng, 4)

  def loss(kernel, bias, images):
    return (convolve(images, kernel, bias) ** 2).sum()

  sharded = jax.shard_map(
    lambda kernel, bias, images: jax.grad(loss, argnums=(0, 1))(kernel, bias, images),
    mesh=mesh,
    in_specs=(P(), P(), P("data")),
    out_specs=P(),
  )
  expected = jax.grad(loss, argnums=(0, 1))(kernel, bias, images)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3),
    jax.jit(sharded)(kernel, bias, images),
    expected,
  )


def test_kernel_for_other_channels_is_refused_with_both_shapes():
  with pytest.raises(InputError, match=r"\(3, 3, 4, 8\).*\(1, 5, 5, 6\)"):
    convolve(jnp.ones((1, 5, 5, 6)), jnp.ones((3, 3, 4, 8)), jnp.ones(8))
  with pytest.raises(InputError, match="valid"):
    convolve(jnp.ones((1, 5, 5, 6)), jnp.ones((3, 3, 6, 8)), jnp.ones(8), padding="valid")
