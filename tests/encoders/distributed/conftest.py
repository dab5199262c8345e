"""A small encoder and a folder of pictures."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def encoder(small_encoder):
  return small_encoder()


@pytest.fixture(scope="session")
def other_encoder(small_encoder):
  return small_encoder(2)


def write_pictures(folder, n):
  rng = np.random.default_rng(0)
  for i in range(n):
    path = folder / f"group {i % 3}" / f"{i:03d} ü.{('png', 'jpg')[i % 2]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((60, 40 + i % 7)).save(path)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
  """37 pictures in nested folders, and a file that is none."""
  folder = tmp_path_factory.mktemp("pictures")
  write_pictures(folder, 37)
  (folder / "group 0" / "broken.jpg").write_bytes(b"no picture")
  return folder


@pytest.fixture(scope="session")
def expected(encoder, pictures):
  """Code of each readable picture, by name, of a call for all of them."""
  from udh_jax.data.pictures import list_pictures, read_picture

  names = [name for name in list_pictures(pictures) if "broken" not in name]
  codes = encoder(np.stack([read_picture(pictures / name, 24) for name in names]))
  return dict(zip(names, np.asarray(codes).tolist(), strict=True))
