import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.losses.classification import smoothed_cross_entropy
from udh_jax.losses.labels import label_cross_entropy, label_targets


@pytest.fixture
def class_weights(rng):
  return rng.normal(size=(5, 6)).astype(np.float32)


def test_cross_entropy_of_no_label_at_all_is_zero(class_weights):
  targets = np.zeros((3, 5), bool)
  loss, gradient = jax.value_and_grad(lambda z: label_cross_entropy(z, targets))(jnp.ones((3, 5)))
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_narrow_labels_name_one_of_many_classes(dtype):
  labels = np.array([3, 127], dtype)
  found = np.asarray(label_targets(labels, 300))
  assert found.sum() == 2 and found[0, 3] and found[1, 127]
  logits = np.zeros((2, 300), np.float32)
  logits[[0, 1], [3, 127]] = 9
  wide = smoothed_cross_entropy(logits, labels.astype(np.int32))
  assert smoothed_cross_entropy(logits, labels) == wide


def test_a_narrow_label_that_says_none_is_of_no_class():
  assert not np.asarray(label_targets(np.array([-1], np.int8), 300)).any()


def test_labels_may_be_unsigned_and_are_refused_beyond_the_classes():
  found = label_targets(np.array([2, 0], np.uint8), 3)
  np.testing.assert_array_equal(found, [[False, False, True], [True, False, False]])
  with pytest.raises(InputError, match="labels run from 0 to 4, expected 0 to 2"):
    label_targets(np.array([4, 0], np.uint8), 3)
  with pytest.raises(InputError, match="labels run from 0 to 7, expected 0 to 3"):
    smoothed_cross_entropy(jnp.ones((2, 4)), np.array([7, 0]))


def test_the_loss_of_float32_logits_is_float32_with_x64_too(rng):
  with jax.enable_x64(True):
    logits = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    targets = label_targets(np.arange(6) % 4, 4)
    assert label_cross_entropy(logits, targets).dtype == jnp.float32
