"""Damaged files of arrays: every one is read as it was, or refused in one line."""

import signal

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from udh_jax.data.readers.arrays import listing, open_arrays
from udh_jax.errors import InputError

QUIETLY = {
  "deadline": None,
  "derandomize": True,
  "database": None,
  "suppress_health_check": list(HealthCheck),
}
MOST_SECONDS = 20


def write_npz(path):
  np.savez(path, image=np.arange(12.0).reshape(4, 3), label=np.arange(4), name=np.array(["a", "b"]))


def write_npz_compressed(path):
  np.savez_compressed(path, image=np.zeros((40, 3)), label=np.arange(4))


def write_mat(path):
  cells = np.array([np.arange(3.0), "text", None], object)[:2]
  inner = {"rows": np.arange(5), "cells": cells}
  scipy.io.savemat(path, {"image": np.arange(12.0).reshape(4, 3), "data": {"split": inner}})


def write_mat_compressed(path):
  scipy.io.savemat(
    path, {"image": np.arange(12.0).reshape(4, 3), "s": {"t": "x"}}, do_compression=True
  )


def write_mat_4(path):
  scipy.io.savemat(path, {"image": np.arange(12.0).reshape(4, 3)}, format="4")


def write_mat_73(path):
  with h5py.File(path, "w", userblock_size=512) as file:
    file["image"] = np.arange(12.0).reshape(3, 4)
    file["group/rows"] = np.arange(5)
    reference = np.empty((2, 1), h5py.ref_dtype)
    reference[:, 0] = [file["image"].ref, file["group/rows"].ref]
    file["cells"] = reference


WRITERS = {
  "npz": write_npz,
  "compressed.npz": write_npz_compressed,
  "mat": write_mat,
  "compressed.mat": write_mat_compressed,
  "4.mat": write_mat_4,
  "73.mat": write_mat_73,
}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
  """Bytes of a sound file of each kind, and a place for damaged ones."""
  folder = tmp_path_factory.mktemp("arrays")
  found = {}
  for name, write in WRITERS.items():
    write(folder / f"sound.{name}")
    found[name] = (folder / f"sound.{name}").read_bytes()
  return folder, found


def read(path):
  """All arrays of a file, or the line that refuses it."""
  try:
    with open_arrays(path) as arrays:
      assert "\n" not in listing(arrays)
      return {name: stored.read() for name, stored in arrays.items()}
  except InputError as error:
    return str(error)


def read_in_time(path):
  """`read`, which must not hang; nor ask for memory that no such small file can need."""

  def late(*_):
    raise AssertionError(f"{path} is still being read after {MOST_SECONDS} s")

  before = signal.signal(signal.SIGALRM, late)
  signal.alarm(MOST_SECONDS)
  try:
    found = read(path)
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
  if isinstance(found, str):
    assert str(path) in found and "\n" not in found and len(found) < 500, found
  return found


@pytest.mark.parametrize("kind", WRITERS)
def test_a_sound_file_is_read(intact, kind):
  folder, _ = intact
  found = read_in_time(folder / f"sound.{kind}")
  assert np.asarray(found["image"]).shape in ((4, 3), (40, 3))


def damaged(draw, data):
  """Bytes with some of them changed, cut off, put in or doubled."""
  data = bytearray(data)
  for _ in range(draw(st.integers(1, 3))):
    if not data:
      break
    place = draw(st.integers(0, len(data) - 1))
    match draw(st.integers(0, 4)):
      case 0:
        data[place] ^= 1 << draw(st.integers(0, 7))
      case 1:
        data[place] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
      case 2:
        del data[place:]
      case 3:
        data[place:place] = draw(st.binary(min_size=1, max_size=9))
      case _:
        piece = draw(st.binary(min_size=4, max_size=8))
        data[place : place + len(piece)] = piece
  return bytes(data)


def try_damage(intact, kind, draw):
  folder, files = intact
  path = folder / f"damaged.{kind}"
  path.write_bytes(damaged(draw, files[kind]))
  read_in_time(path)


# SciPy 1.x can crash the process on a damaged file of MATLAB 5 to 7, which we cannot catch.
DAMAGED = [kind for kind in WRITERS if kind not in ("mat", "compressed.mat")]


@pytest.mark.parametrize("kind", DAMAGED)
@settings(max_examples=60, **QUIETLY)
@given(st.data())
def test_damage_is_read_or_refused(intact, kind, data):
  try_damage(intact, kind, data.draw)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGED)
@settings(max_examples=1500, **QUIETLY)
@given(st.data())
def test_much_damage_is_read_or_refused(intact, kind, data):
  try_damage(intact, kind, data.draw)


NAMES = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=6)
LEAVES = st.one_of(
  st.integers(-9, 9).map(float),
  st.text(max_size=4),
  st.integers(0, 4).map(lambda n: np.zeros((n, 2))),
  st.integers(0, 3).map(lambda n: np.zeros(n, bool)),
  st.just(np.array([1 + 2j])),
)


def cell(items):
  return np.array([*items, None], object)[:-1]


STRUCTURES = st.recursive(
  LEAVES,
  lambda inner: st.one_of(
    st.dictionaries(NAMES, inner, max_size=3).filter(bool), st.lists(inner, max_size=3).map(cell)
  ),
  max_leaves=12,
)


@settings(max_examples=60, **QUIETLY)
@given(st.dictionaries(NAMES, STRUCTURES, min_size=1, max_size=3))
def test_any_structure_of_matlab_is_listed_and_read(intact, variables):
  folder, _ = intact
  path = folder / "structure.mat"
  scipy.io.savemat(path, variables)
  found = read_in_time(path)
  assert not isinstance(found, str), found
  for name, value in variables.items():
    if isinstance(value, np.ndarray) and value.dtype != object and value.ndim == 2 and value.size:
      np.testing.assert_array_equal(found[name], value)


def test_arrays_of_python_objects_are_refused(tmp_path):
  np.savez(tmp_path / "a.npz", image=np.array([{}, []], object), label=np.arange(2))
  assert "cannot be read as .npz" in read_in_time(tmp_path / "a.npz")
