import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from udh_jax.data import augmentation
from udh_jax.data.augmentation import normalise
from udh_jax.errors import InputError

KEY = jax.random.key(0)

# As they are used: compiled. One by one, the operations would each be compiled for themselves.
options = list(inspect.signature(augmentation.augment).parameters)[3:]
augment = jax.jit(augmentation.augment, static_argnames=options)
resize = jax.jit(augmentation.resize, static_argnames="size")


def random_images(rng, *shape):
  return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(("side", "size"), [(8, 32), (32, 96), (45, 20), (17, 17), (40, 1)])
def test_resize_agrees_with_jax_and_pillow(rng, side, size):
  images = random_images(rng, 3, side, side)
  ours = np.asarray(resize(images, size=size))
  expected = np.clip(
    jax.image.resize(images / np.float32(255), (3, size, size, 3), "bicubic"), 0, 1
  )
  np.testing.assert_allclose(ours, expected, atol=1e-5)
  images = images // 2 + 64  # Pillow rounds and clips twice: leave room above and below
  pillow = [np.asarray(Image.fromarray(i).resize((size, size), Image.BICUBIC)) for i in images]
  ours = np.asarray(resize(images, size=size))
  np.testing.assert_allclose(ours * 255, np.stack(pillow), atol=1.3)


def test_resize_takes_images_that_are_not_square(rng):
  images = random_images(rng, 2, 30, 47)
  expected = np.clip(jax.image.resize(images / np.float32(255), (2, 24, 24, 3), "bicubic"), 0, 1)
  np.testing.assert_allclose(resize(images, size=24), expected, atol=1e-5)


def test_resize_to_the_same_size_changes_nothing(rng):
  images = random_images(rng, 2, 16, 16)
  np.testing.assert_allclose(resize(images, size=16), images / np.float32(255), atol=1e-6)


def test_without_options_a_view_is_the_resized_image(rng):
  images = random_images(rng, 5, 32, 32)
  views = augment(KEY, images, np.arange(5), size=48)
  np.testing.assert_allclose(views, resize(images, size=48), atol=1e-6)


def test_flip_mirrors_about_half_of_the_views_exactly(rng):
  images = random_images(rng, 400, 6, 6)
  views = np.asarray(augment(KEY, images, np.arange(400), size=9, flip=True))
  plain = np.asarray(augment(KEY, images, np.arange(400), size=9))
  same = (views == plain).all(axis=(1, 2, 3))
  mirrored = np.isclose(views, plain[:, :, ::-1], atol=1e-6).all(axis=(1, 2, 3))
  assert (same ^ mirrored).all()
  assert 150 < mirrored.sum() < 250


def test_a_view_depends_on_key_and_row_number_alone(rng):
  options = {
    "size": 24,
    "crop_scale": (0.3, 1),
    "crop_ratio": (0.75, 4 / 3),
    "flip": True,
    "color": 0.4,
    "grayscale": 0.2,
    "cutout": 0.3,
    "padding": 0.1,
  }
  images, index = random_images(rng, 12, 20, 20), np.arange(100, 112)
  views = np.asarray(augment(KEY, images, index, **options))
  order = rng.permutation(12)
  shuffled = augment(KEY, images[order], index[order], **options)
  np.testing.assert_allclose(shuffled, views[order], atol=1e-5)
  for row in (0, 7):
    alone = augment(KEY, images[row : row + 1], index[row : row + 1], **options)
    np.testing.assert_allclose(alone[0], views[row], atol=1e-5)
  other_key = augment(jax.random.key(1), images, index, **options)
  assert (np.abs(np.asarray(other_key) - views).max(axis=(1, 2, 3)) > 0.01).all()
  other_index = augment(KEY, images, index + 50, **options)
  assert (np.abs(np.asarray(other_index) - views).max(axis=(1, 2, 3)) > 0.01).all()


def test_views_are_the_same_on_eight_devices(rng, mesh):
  sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  options = {"size": 12, "crop_scale": (0.3, 1), "flip": True, "color": 0.4}
  images, index = random_images(rng, 16, 10, 10), np.arange(16)
  one = augment(KEY, images, index, **options)
  many = augment(KEY, *jax.device_put((images, index), sharding), **options)
  assert many.sharding.is_equivalent_to(sharding, many.ndim)

  def view(key, images, index):
    return augmentation.augment(key, images, index, **options)

  P = jax.sharding.PartitionSpec
  mapped = jax.shard_map(view, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
  np.testing.assert_allclose(jax.jit(mapped)(KEY, images, index), one, atol=1e-5)
  parallel = jax.pmap(view, in_axes=(None, 0, 0))
  parts = parallel(KEY, images.reshape(8, 2, 10, 10, 3), index.reshape(8, 2))
  np.testing.assert_allclose(parts.reshape(16, 12, 12, 3), one, atol=1e-5)
  np.testing.assert_allclose(many, one, atol=1e-5)


def coordinate_images(count, side):
  """Red rises by one from left to right, green from top to bottom: colours tell positions."""
  ramp = np.arange(side, dtype=np.uint8)
  image = np.zeros((side, side, 3), np.uint8)
  image[..., 0], image[..., 1] = ramp[None, :], ramp[:, None]
  return np.repeat(image[None], count, axis=0)


def boxes_of(views, size):
  """Left, top, width and height of the crops of `coordinate_images`, from the centre pixels."""
  values = np.asarray(views) * 255
  width = (values[:, size // 2, -8, 0] - values[:, size // 2, 7, 0]) / (size - 15) * size
  height = (values[:, -8, size // 2, 1] - values[:, 7, size // 2, 1]) / (size - 15) * size
  left = values[:, size // 2, 7, 0] + 0.5 - 7.5 / size * width
  top = values[:, 7, size // 2, 1] + 0.5 - 7.5 / size * height
  return left, top, width, height


def test_crops_have_areas_ratios_and_places_in_range():
  side, size = 200, 64
  images = coordinate_images(500, side)
  views = augment(
    KEY, images, np.arange(500), size=size, crop_scale=(0.2, 0.6), crop_ratio=(0.75, 4 / 3)
  )
  left, top, width, height = boxes_of(views, size)
  scale, ratio = width * height / side**2, width / height
  assert 0.19 < scale.min() < 0.22 and 0.58 < scale.max() < 0.61
  assert abs(scale.mean() - 0.4) < 0.02
  assert 0.74 < ratio.min() < 0.77 and 1.3 < ratio.max() < 1.35
  assert abs(np.log(ratio).mean()) < 0.03
  assert left.min() > -1 and (left + width).max() < side + 1
  assert top.min() > -1 and (top + height).max() < side + 1
  where = left / (side - width)
  assert where.min() < 0.05 and where.max() > 0.95 and abs(where.mean() - 0.5) < 0.05
  assert abs(np.corrcoef(left, top)[0, 1]) < 0.15


def test_a_crop_equals_the_image_resampled_in_that_box(rng):
  image = random_images(rng, 40, 40) // 2 + 64  # room above and below, as Pillow clips twice
  images = np.stack([image, coordinate_images(1, 40)[0]])
  # The same index: the same box for both, which the second picture tells.
  views = augment(KEY, images, np.array([3, 3]), size=64, crop_scale=(0.5, 0.5))
  left, top, width, height = (float(v[1]) for v in boxes_of(views, 64))
  box = (left, top, left + width, top + height)
  expected = Image.fromarray(image).resize((64, 64), Image.BICUBIC, box=box)
  inner = np.s_[4:-4, 4:-4]  # at the edges ours may look past the crop
  np.testing.assert_allclose(np.asarray(views)[0][inner] * 255, np.asarray(expected)[inner], atol=4)


def test_padding_moves_the_image_and_fills_with_black():
  images = np.full((300, 16, 16, 3), 255, np.uint8)
  views = np.asarray(augment(KEY, images, np.arange(300), size=16, padding=0.25))
  black_rows = (views[:, :, 8, 0] < 0.01).sum(axis=1)
  assert black_rows.max() in (3, 4) and black_rows.min() == 0
  np.testing.assert_allclose(views[:, 8, 8], 1, atol=1e-6)


def test_values_stay_in_range_with_every_option(rng):
  images = np.concatenate([
    random_images(rng, 30, 16, 16), np.zeros((5, 16, 16, 3), np.uint8),
    np.full((5, 16, 16, 3), 255, np.uint8),
  ])  # fmt: skip
  views = np.asarray(
    augment(
      KEY, images, np.arange(40), size=20, crop_scale=(0.1, 1.5), crop_ratio=(0.5, 2), flip=True,
      color=1, grayscale=0.5, cutout=0.5, padding=0.2,
    )
  )  # fmt: skip
  assert views.dtype == np.float32 and views.shape == (40, 20, 20, 3)
  assert views.min() >= 0 and views.max() <= 1


def test_grayscale_takes_the_colour_from_the_given_part(rng):
  images = random_images(rng, 400, 6, 6)
  views = np.asarray(augment(KEY, images, np.arange(400), size=6, grayscale=0.25))
  grey = np.ptp(views, axis=-1).max(axis=(1, 2)) < 1e-5
  assert 70 < grey.sum() < 130
  luma = images @ np.array([0.299, 0.587, 0.114]) / 255
  np.testing.assert_allclose(views[grey, ..., 0], luma[grey], atol=1e-5)
  np.testing.assert_allclose(views[~grey], images[~grey] / 255, atol=1e-5)


def test_brightness_alone_is_what_moves_a_grey_image():
  images = np.full((500, 4, 4, 3), 100, np.uint8)
  factor = np.asarray(augment(KEY, images, np.arange(500), size=4, color=0.3)) * 2.55
  assert np.ptp(factor, axis=(1, 2, 3)).max() < 1e-4
  factor = factor[:, 0, 0, 0]
  assert 0.7 <= factor.min() < 0.72 and 1.28 < factor.max() <= 1.3001


def test_contrast_and_saturation_stretch_about_the_mean_and_the_grey(rng):
  images = (100 + random_images(rng, 200, 8, 8) // 5).astype(
    np.uint8
  )  # far from the ends: no clips
  views = np.asarray(augment(KEY, images, np.arange(200), size=8, color=0.3), np.float64)
  luma = np.array([0.299, 0.587, 0.114])
  before, after = images / 255, views
  grey_before, grey_after = before @ luma, after @ luma
  brightness = grey_after.mean(axis=(1, 2)) / grey_before.mean(axis=(1, 2))
  contrast = grey_after.std(axis=(1, 2)) / grey_before.std(axis=(1, 2)) / brightness
  chroma_before, chroma_after = before - grey_before[..., None], after - grey_after[..., None]
  saturation = chroma_after.std(axis=(1, 2, 3)) / chroma_before.std(axis=(1, 2, 3))
  saturation = saturation / brightness / contrast
  for factor in (brightness, contrast, saturation):
    assert 0.699 < factor.min() < 0.72 and 1.28 < factor.max() < 1.301


@pytest.mark.parametrize("size", [5, 16])
def test_colour_is_that_of_the_finished_view_whether_images_shrink_or_grow(rng, size):
  images = (100 + random_images(rng, 50, 12, 10) // 5).astype(np.uint8)  # far from the ends
  options = {"size": size, "crop_scale": (0.5, 1.2), "padding": 0.2, "flip": True}
  plain, inside, coloured = (
    np.asarray(augment(KEY, values, np.arange(50), **options, color=color), np.float64)
    for values, color in ((images, 0), (np.full_like(images, 255), 0), (images, 0.3))
  )
  assert (inside == 0).any()
  grey = (plain @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=3)
  mean = grey.mean(axis=(1, 2, 3), keepdims=True) * inside
  for i in range(50):
    terms = np.stack([grey[i].ravel(), (plain - grey)[i].ravel(), mean[i].ravel()], axis=1)
    factors, *_ = np.linalg.lstsq(terms, coloured[i].ravel(), rcond=None)
    np.testing.assert_allclose(terms @ factors, coloured[i].ravel(), atol=1e-5)
    brightness = factors[0] + factors[2]
    for factor in (brightness, factors[0] / brightness, factors[1] / factors[0]):
      assert 0.69 < factor < 1.31


def test_cutout_hides_one_square_of_the_given_side():
  images = np.zeros((300, 20, 20, 3), np.uint8)
  views = np.asarray(augment(KEY, images, np.arange(300), size=20, cutout=0.3))
  assert set(np.unique(views)) == {0, 0.5}
  area = (views[..., 0] == 0.5).sum(axis=(1, 2))
  assert area.max() == 36 and area.min() >= 4 and (area == 36).mean() > 0.3
  assert (views[..., 0] == 0.5).any(axis=0).all()  # every place is hit at times


def test_no_images_give_no_views():
  empty = np.zeros((0, 8, 8, 3), np.uint8)
  assert augment(KEY, empty, np.zeros(0, np.int32), size=5, flip=True).shape == (0, 5, 5, 3)
  assert resize(empty, size=5).shape == (0, 5, 5, 3)


def test_padding_rows_of_a_batch_are_taken():
  views = augment(KEY, np.zeros((2, 8, 8, 3), np.uint8), np.array([4, -1], np.int32), size=8)
  assert jnp.isfinite(views).all()


def test_normalise_shifts_and_scales_each_channel(rng):
  images = rng.random((2, 3, 3, 3), dtype=np.float32)
  mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
  expected = (images - np.array(mean)) / np.array(std)
  np.testing.assert_allclose(normalise(images, mean, std), expected, atol=1e-6)
  np.testing.assert_allclose(normalise(images, 0.5, 0.25), images * 4 - 2, atol=1e-6)
  with pytest.raises(InputError, match=r"mean \(2,\)"):
    normalise(images, [0.1, 0.2], std)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"crop_scale": (0, 1)}, "crop_scale"),
    ({"crop_ratio": (2, 1)}, "crop_ratio"),
    ({"color": 2}, "color"),
    ({"grayscale": -0.1}, "grayscale"),
    ({"size": 0}, "size"),
  ],
)
def test_senseless_options_are_refused(options, message):
  images = np.zeros((2, 8, 8, 3), np.uint8)
  with pytest.raises(InputError, match=message):
    augment(KEY, images, np.arange(2), **{"size": 8, **options})


def test_wrong_shapes_are_refused():
  images = np.zeros((2, 8, 8, 3), np.uint8)
  with pytest.raises(InputError, match="index has shape"):
    augment(KEY, images, np.arange(3), size=8)
  with pytest.raises(InputError, match="uint8"):
    resize(images.astype(np.float32), size=8)
  with pytest.raises(InputError, match="uint8"):
    augment(KEY, images[0], np.arange(2), size=8)


def test_the_ratio_is_the_width_of_the_crop_over_its_height():
  images = coordinate_images(20, 200)
  views = augment(KEY, images, np.arange(20), size=64, crop_scale=(0.3, 0.3), crop_ratio=(2.0, 2.0))
  _, _, width, height = boxes_of(views, 64)
  np.testing.assert_allclose(width / height, 2, rtol=0.02)
