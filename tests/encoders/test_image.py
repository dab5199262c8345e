"""A hash network on its own: saved, loaded, exported, and used from the command line."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import udh_jax
from udh_jax.coding import unpack_codes
from udh_jax.commands import encode, search
from udh_jax.encoders.image import Encoder, codes_of
from udh_jax.encoders.loading import load_encoder
from udh_jax.errors import InputError
from udh_jax.models.registry import create_backbone
from udh_jax.retrieval import HammingIndex

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder(small_encoder):
  return small_encoder()


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).integers(0, 256, (9, 24, 24, 3), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path, rng):
  """Twelve pictures of several kinds in nested folders, and one file that is none."""
  folder = tmp_path / "pictures"
  for i in range(12):
    path = folder / f"group {i % 3}" / f"{i}.{('png', 'jpg')[i % 2]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((60, 40 + i)).save(path)
  (folder / "group 0" / "broken.jpg").write_bytes(b"no picture")
  return folder


def test_codes_are_signs_of_the_hash_layer(encoder, images):
  module = create_backbone("small_convnet", padding="symmetric")
  view = jax.image.resize(images / np.float32(255), (9, 16, 16, 3), "bicubic").clip(0, 1)
  features = module.apply(encoder.variables["backbone"], (view - 0.5) / 0.25)
  outputs = np.asarray(features) @ np.asarray(encoder.variables["hash"]["kernel"])
  signs = np.asarray(unpack_codes(encoder(images), 12))
  clear = np.abs(outputs) > 1e-2 * np.abs(outputs).max()
  assert clear.mean() > 0.9
  np.testing.assert_array_equal(signs[clear], np.sign(outputs)[clear])
  assert encoder(images[:0]).shape == (0, 2)
  found = encoder.outputs(images)
  np.testing.assert_allclose(found, outputs, atol=1e-2 * np.abs(outputs).max())
  np.testing.assert_array_equal(np.where(found >= 0, 1, -1), signs)
  assert found.dtype == np.float32 and encoder.outputs(images[:0]).shape == (0, 12)
  with pytest.raises(InputError, match="expected uint8"):
    encoder.outputs(images[0])


def test_saved_and_loaded_again(encoder, images, tmp_path):
  encoder.save(tmp_path / "e")
  again = udh_jax.load_encoder(tmp_path / "e")
  np.testing.assert_array_equal(again(images), encoder(images))
  assert again.about == encoder.about
  assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
    "config.json",
    "hash_layer.safetensors",
    "model.safetensors",
  ]


def test_loaded_from_the_hub(encoder, images, tmp_path, monkeypatch):
  encoder.save(tmp_path)
  monkeypatch.setattr(
    "huggingface_hub.hf_hub_download", lambda repository, name: str(tmp_path / name)
  )
  np.testing.assert_array_equal(load_encoder("hf-hub:someone/codes")(images), encoder(images))


def test_an_altered_tensor_is_noticed(encoder, tmp_path):
  encoder.save(tmp_path)
  data = bytearray((tmp_path / "hash_layer.safetensors").read_bytes())
  data[-1] ^= 64
  (tmp_path / "hash_layer.safetensors").write_bytes(data)
  with pytest.raises(InputError, match="do not match the checksum"):
    load_encoder(tmp_path)


def test_exported_code_runs_with_jax_numpy_and_flatbuffers_alone(encoder, images, tmp_path):
  encoder.export(tmp_path / "encoder.bin")
  np.save(tmp_path / "images.npy", images)
  program = """
import sys
others = ("flax", "optax", "orbax", "safetensors", "PIL", "tensorflow", "ml_collections", "absl")
sys.modules |= dict.fromkeys(others)  # None: an import of them fails
import jax, jax.export, numpy as np
data = bytearray(open("encoder.bin", "rb").read())
codes = jax.export.deserialize(data).call(np.load("images.npy"))
np.save("codes.npy", codes)
assert jax.export.deserialize(data).call(np.load("images.npy")[:2]).shape == (2, 2)
assert "udh_jax" not in sys.modules
"""
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
  np.testing.assert_array_equal(np.load(tmp_path / "codes.npy"), encoder(images))


def test_codes_under_jit_and_shard_map(encoder, images, mesh):
  eight = images[:8]
  rows, same = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
  sharded = jax.shard_map(
    lambda variables, images: codes_of(variables, images, encoder.about),
    mesh=mesh,
    in_specs=(same, rows),
    out_specs=rows,
  )
  np.testing.assert_array_equal(jax.jit(sharded)(dict(encoder.variables), eight), encoder(eight))


def test_pictures_are_encoded_and_found_from_the_command_line(encoder, pictures, tmp_path, capsys):
  encoder.save(tmp_path / "run" / "encoder_12bits")
  index_file, gallery = tmp_path / "mine.index", tmp_path / "gallery.png"
  arguments = [f"--workdir={tmp_path / 'run'}", f"--images={pictures}", f"--output={index_file}"]
  encode.main([*arguments, "--batch-size=5"])
  assert "1 of 13 files cannot be read" in capsys.readouterr().out
  unreadable = (tmp_path / "mine.index.unreadable.txt").read_text()
  assert unreadable.startswith("group 0/broken.jpg: ")
  index = HammingIndex.load(index_file)
  assert (len(index), index.num_bits) == (12, 12)
  assert "group 1/7.jpg" in index.names
  assert not (tmp_path / "mine.index.partial").exists()

  query = pictures / "group 1" / "7.jpg"
  search.main([f"--index={index_file}", f"--image={query}", "-k", "3"])
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3
  assert lines[0].split(maxsplit=1)[0] == "0"
  search.main(
    [f"--index={index_file}", f"--image={query}", "--radius=12", "--json", f"--gallery={gallery}"]
  )
  found = json.loads(capsys.readouterr().out)["neighbours"]
  assert len(found) == 12
  assert {"name": "group 1/7.jpg", "distance": 0} in found
  assert [item["distance"] for item in found] == sorted(item["distance"] for item in found)
  with Image.open(gallery) as image:
    assert min(image.size) > 200


def test_bad_input_is_one_clear_line(encoder, pictures, failing, tmp_path, capsys):
  run, index = tmp_path / "run", tmp_path / "x.index"
  arguments = [f"--workdir={run}", f"--images={pictures}", f"--output={index}"]
  assert "is not a folder" in failing(encode.main, arguments)
  encoder.save(run / "encoder_12bits")
  assert "holds no encoder of 8 bits" in failing(encode.main, [*arguments, "--bits=8"])
  assert "is not a folder" in failing(encode.main, [*arguments, "--images=/nowhere"])
  assert "does not exist" in failing(encode.main, [*arguments, "--output=/nowhere/x"])
  assert "give 1 or more" in failing(encode.main, [*arguments, "--batch-size=0"])
  empty = tmp_path / "empty"
  empty.mkdir()
  assert "no pictures" in failing(encode.main, [*arguments, f"--images={empty}"])
  (empty / "a.png").write_bytes(b"")
  assert "None of the 1 pictures" in failing(encode.main, [*arguments, f"--images={empty}"])
  assert not index.exists()

  encode.main(arguments)
  capsys.readouterr()
  query = f"--image={pictures / 'group 0' / '0.png'}"
  assert "cannot be read" in failing(search.main, ["--index=/nowhere", query])
  found = failing(search.main, [f"--index={index}", f"--image={empty / 'a.png'}"])
  assert "a.png cannot be read" in found
  assert "k is 0" in failing(search.main, [f"--index={index}", query, "-k", "0"])
  other = Encoder(encoder.variables, encoder.about | {"image_size": 20})
  other.save(tmp_path / "other")
  found = failing(search.main, [f"--index={index}", query, f"--encoder={tmp_path / 'other'}"])
  assert "is not the one that made the index" in found
  found = failing(search.main, [f"--index={index}", "--text=dog"])
  assert "takes pictures alone" in found


def test_every_program_is_reached_by_its_name_and_shows_its_help():
  for name in ("encode", "search"):
    command = [sys.executable, "-m", "udh_jax", name, "--help"]
    shown = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout
    assert f"usage: udh-jax {name}" in shown
  assert callable(udh_jax.search)


def test_importing_the_package_stays_light():
  program = "import sys, udh_jax; assert not {'tensorflow', 'faiss', 'PIL'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_the_bias_and_the_mean_and_deviation_of_each_channel_count(encoder, images):
  about = encoder.about | {"mean": [0.2, 0.5, 0.7], "std": [0.4, 0.25, 0.15]}
  module = create_backbone("small_convnet", padding="symmetric")
  view = jax.image.resize(images / np.float32(255), (9, 16, 16, 3), "bicubic").clip(0, 1)
  view = (view - np.float32(about["mean"])) / np.float32(about["std"])
  features = np.asarray(module.apply(encoder.variables["backbone"], view))
  outputs = features @ np.asarray(encoder.variables["hash"]["kernel"])
  bias = -np.median(outputs, axis=0)  # half of the bits are set
  hashed = {"kernel": encoder.variables["hash"]["kernel"], "bias": bias}
  outputs = outputs + bias
  signs = unpack_codes(Encoder({**encoder.variables, "hash": hashed}, about)(images), 12)
  clear = np.abs(outputs) > 1e-3 * np.abs(outputs).max()
  assert clear.mean() > 0.8
  np.testing.assert_array_equal(np.asarray(signs)[clear], np.sign(outputs)[clear])


def test_an_encoder_can_be_pickled(encoder, images):
  copied = pickle.loads(pickle.dumps(encoder))
  assert copied.digest == encoder.digest
  np.testing.assert_array_equal(copied(images), encoder(images))


def test_weights_are_sent_to_the_device_once_and_few_sizes_compiled(encoder, images):
  own = Encoder(encoder.variables, encoder.about)
  whole = own.outputs(images[:8])
  for count in (5, 6, 7, 8):
    np.testing.assert_allclose(own.outputs(images[:count]), whole[:count], rtol=1e-5, atol=1e-5)
    assert own(images[:count]).shape[0] == count
  assert own._outputs._cache_size() == own._encode._cache_size() == 1
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(own._placed))
  assert own._placed is own._placed
