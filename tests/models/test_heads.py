import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from udh_jax.errors import InputError
from udh_jax.models.heads import Classifier, HashNetwork
from udh_jax.models.registry import create_backbone


@pytest.fixture(scope="module")
def digits():
  images, labels = load_digits(return_X_y=True)
  images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype(np.float32)
  return np.repeat(images, 3, axis=-1), labels


def test_relaxed_codes_lie_between_the_signs_and_feed_the_classifier(digits):
  images = digits[0][:7]
  network = HashNetwork(create_backbone("small_convnet"), 12, 5)
  variables = jax.jit(network.init)(jax.random.key(0), images)
  relaxed, logits = jax.jit(network.apply)(variables, images)
  assert relaxed.shape == (7, 12) and logits.shape == (7, 5)
  assert relaxed.dtype == logits.dtype == jnp.float32
  assert np.abs(relaxed).max() < 1
  np.testing.assert_allclose(logits, relaxed @ variables["params"]["head"]["kernel"], atol=1e-5)


def test_a_classifier_may_read_the_features(digits):
  images = digits[0][:7]
  backbone = create_backbone("small_convnet")
  network = HashNetwork(backbone, 12, 5, "features")
  variables = jax.jit(network.init)(jax.random.key(0), images)
  _, logits = jax.jit(network.apply)(variables, images)
  features = backbone.apply({"params": variables["params"]["backbone"]}, images)
  np.testing.assert_allclose(logits, features @ variables["params"]["head"]["kernel"], atol=1e-5)
  # It teaches the backbone, and the hash layer nothing.
  loss = jax.grad(lambda p: (network.apply({"params": p}, images)[1] ** 2).sum())
  gradients = jax.jit(loss)(variables["params"])
  assert not np.any(gradients["hash"]["kernel"])
  assert np.any(gradients["backbone"][next(iter(gradients["backbone"]))]["kernel"])
  with pytest.raises(InputError, match="classifier is 'bits'; give one of codes, features"):
    HashNetwork(backbone, 12, 5, "bits")


@pytest.mark.parametrize(
  ("shape", "words"), [((1, 3, 8, 3), "images are 3 x 8"), ((1, 8, 8, 1), "have 1 channels")]
)
def test_images_that_the_small_network_cannot_read_are_refused(shape, words):
  network = create_backbone("small_convnet")
  with pytest.raises(InputError, match=words):
    network.init(jax.random.key(0), jnp.zeros(shape))


def test_fewer_than_one_bit_or_class_is_refused():
  backbone = create_backbone("small_convnet")
  with pytest.raises(InputError, match="bits is 0"):
    HashNetwork(backbone, 0, 5)
  with pytest.raises(InputError, match="num_classes is -1"):
    HashNetwork(backbone, 8, -1)
  with pytest.raises(InputError, match="num_classes is -1"):
    Classifier(backbone, -1)


@pytest.mark.slow
def test_small_network_learns_digits_from_nothing(digits):
  images, labels = digits
  network = Classifier(create_backbone("small_convnet").clone(widths=(16, 32)), 10)
  parameters = jax.jit(network.init)(jax.random.key(0), images[:1])["params"]
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(parameters, state, images, labels):
    def loss(parameters):
      logits, _ = network.apply({"params": parameters}, images)
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, gradients = jax.value_and_grad(loss)(parameters)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(parameters, updates), state, value

  state, losses = optimizer.init(parameters), []
  for start in 4 * list(range(0, 1500, 50)):
    batch = images[start : start + 50], labels[start : start + 50]
    parameters, state, value = step(parameters, state, *batch)
    losses.append(float(value))
  assert losses[0] > 2
  assert np.mean(losses[-5:]) < 0.6
  logits, _ = jax.jit(network.apply)({"params": parameters}, images[1500:])
  assert (logits.argmax(axis=1) == labels[1500:]).mean() > 0.7
