import json
import logging
import os
import pickle

import jax
import numpy as np
import pytest
from PIL import Image

import udh_jax
from udh_jax.commands import encode, search
from udh_jax.encoders.pair import PairEncoder, pair_module
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex

ABOUT = {
  "backbone": "",
  "padding": "",
  "mean": [],
  "std": [],
  "dtype": "float32",
  "image_size": 0,
  "bits": 12,
  "hidden": 9,
  "dropout": 0.0,
  "picture_size": 0,
  "image_width": 5,
  "text_width": 4,
  "words": ["sky", "sea", "dog", "new york"],
}


def make(**changes):
  about = ABOUT | changes
  images = np.zeros((1, 16, 16, 3) if about["backbone"] else (1, 5), np.float32)
  module = pair_module(about, "float32")
  variables = module.init(jax.random.key(0), images, np.zeros((1, 4), np.float32))
  return PairEncoder(jax.tree.map(np.asarray, variables), about)


@pytest.fixture
def encoder():
  return make()


def test_a_saved_encoder_gives_the_same_codes(encoder, rng, tmp_path):
  encoder.save(tmp_path / "e")
  loaded = udh_jax.load_encoder(tmp_path / "e")
  images, texts = rng.normal(size=(7, 5)), rng.random((7, 4)) < 0.5
  np.testing.assert_array_equal(loaded.images(images), encoder.images(images))
  np.testing.assert_array_equal(loaded.texts(texts), encoder.texts(texts))
  assert loaded.images(images).shape == (7, 2) and loaded.digest == encoder.digest


def test_codes_are_the_signs_of_two_plain_layers(encoder, rng):
  texts = (rng.random((6, 4)) < 0.5).astype(np.float64)
  layers = encoder.variables["params"]["text_layers"]
  hidden = np.maximum(texts @ layers["hidden"]["kernel"] + layers["hidden"]["bias"], 0)
  outputs = hidden @ layers["output"]["kernel"] + layers["output"]["bias"]
  np.testing.assert_array_equal(encoder.texts(texts), np.packbits(outputs >= 0, axis=1))
  np.testing.assert_allclose(encoder.text_outputs(texts), outputs, rtol=1e-4)


PICTURES = {
  "backbone": "small_convnet",
  "padding": "symmetric",
  "mean": [0.5] * 3,
  "std": [0.25] * 3,
  "image_size": 16,
  "picture_size": 20,
  "image_width": 0,
}


def test_pictures_go_through_the_backbone(rng, tmp_path):
  encoder = make(**PICTURES)
  pictures = rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
  codes = encoder.images(pictures)
  np.testing.assert_array_equal(np.packbits(encoder.outputs(pictures) >= 0, axis=1), codes)
  encoder.save(tmp_path / "e")
  np.testing.assert_array_equal(udh_jax.load_encoder(tmp_path / "e").images(pictures), codes)
  with pytest.raises(InputError, match="uint8"):
    encoder.images(pictures.astype(np.float32))


def test_texts_may_be_words(encoder, caplog):
  expected = encoder.texts(np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]))
  with caplog.at_level(logging.WARNING):
    found = encoder.texts(["dog sky zebra", ["new york"], ""])
  np.testing.assert_array_equal(found, expected)
  assert "1 words are not in the vocabulary of 4" in caplog.text and "zebra" in caplog.text


def test_a_text_alone_and_values_that_are_not_finite_are_refused(encoder):
  for ask in (encoder.texts, encoder.text_outputs):
    with pytest.raises(InputError, match=r"texts are one string, 'dog'; give a list of texts"):
      ask("dog")
    with pytest.raises(InputError, match="texts: 1 of 2 rows hold NaN or infinity"):
      ask(np.array([[1, 0, 1, 0], [0, np.nan, 0, 1]]))
  for ask in (encoder.images, encoder.outputs):
    with pytest.raises(InputError, match="images: 1 of 1 rows hold NaN or infinity"):
      ask(np.full((1, 5), np.inf))


def test_nothing_gives_no_codes(encoder):
  assert encoder.images(np.zeros((0, 5))).shape == (0, 2)
  assert encoder.texts([]).shape == (0, 2)
  assert encoder.outputs(np.zeros((0, 5))).shape == encoder.text_outputs([]).shape == (0, 12)


def test_a_vocabulary_of_another_size_is_refused(encoder):
  with pytest.raises(InputError, match=r"\(2, 6\), expected \[b, 4\]"):
    encoder.texts(np.zeros((2, 6)))
  with pytest.raises(InputError, match=r"expected features \[b, 5\]"):
    encoder.images(np.zeros((2, 6)))
  with pytest.raises(InputError, match="without a vocabulary"):
    make(words=[]).texts(["dog"])


def test_a_damaged_file_is_refused(encoder, tmp_path):
  encoder.save(tmp_path)
  path = tmp_path / "networks.safetensors"
  data = bytearray(path.read_bytes())
  data[-3] ^= 1
  path.write_bytes(data)
  with pytest.raises(InputError, match="checksum"):
    udh_jax.load_encoder(tmp_path)
  path.write_bytes(data[:20])
  with pytest.raises(InputError, match="damaged"):
    udh_jax.load_encoder(tmp_path)


def test_another_version_is_refused(encoder, tmp_path):
  encoder.save(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps(config | {"version": 9}))
  with pytest.raises(InputError, match="version 9"):
    udh_jax.load_encoder(tmp_path)


@pytest.fixture
def folder(rng, tmp_path):
  """A folder of seven pictures."""
  (tmp_path / "pictures").mkdir()
  for i in range(7):
    picture = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    picture.save(tmp_path / "pictures" / f"{i}.png")
  return tmp_path / "pictures"


def test_texts_find_pictures_from_the_command_line(folder, failing, tmp_path, capsys):
  encoder = make(**PICTURES)
  encoder.save(tmp_path / "run" / "encoder_12bits")
  file = tmp_path / "mine.index"
  encode.main([f"--workdir={tmp_path / 'run'}", f"--images={folder}", f"--output={file}"])
  index = HammingIndex.load(file)
  capsys.readouterr()

  for text, words in (("dog sky", ["dog", "sky"]), ("new york, sea", ["new york", "sea"])):
    gallery = tmp_path / "gallery.png"
    search.main([f"--index={file}", f"--text={text}", "-k=3", "--json", f"--gallery={gallery}"])
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == text
    distances, indices = index.search(encoder.texts([words]), 3)
    expected = zip(distances[0], indices[0], strict=True)
    assert [(n["distance"], n["name"]) for n in found["neighbours"]] == [
      (d, index.names[i]) for d, i in expected
    ]
    with Image.open(gallery) as image:
      assert min(image.size) > 150
    os.remove(gallery)
    search.main([f"--index={file}", f"--text={text}", "-k=3", "--json", "--asymmetric"])
    found = json.loads(capsys.readouterr().out)["neighbours"]
    _, (best,) = index.asymmetric_search(encoder.text_outputs([words]), 3)
    assert [n["name"] for n in found] == [index.names[i] for i in best]
  search.main([f"--index={file}", f"--image={folder / '4.png'}", "-k=1"])
  assert capsys.readouterr().out.split()[0] == "0"

  line = failing(search.main, [f"--index={file}", "--text=zebra"])
  assert "No word of 'zebra'" in line and "4 words, such as sky" in line


def test_an_encoder_of_features_reads_no_picture_files(encoder, folder, failing, tmp_path, capsys):
  encoder.save(tmp_path / "encoder")
  arguments = [f"--encoder={tmp_path / 'encoder'}", f"--images={folder}", "--output=x.index"]
  assert "features of 5 numbers an image" in failing(encode.main, arguments)
  about = {"encoder": {"source": str(tmp_path / "encoder"), "digest": encoder.digest}}
  index = HammingIndex(encoder.images(np.eye(5)), list("abcde"), num_bits=12, about=about)
  index.save(tmp_path / "features.index")
  by_picture = [f"--index={tmp_path / 'features.index'}", f"--image={folder / '0.png'}"]
  assert "not on pictures" in failing(search.main, by_picture)
  search.main([f"--index={tmp_path / 'features.index'}", "--text=dog", "-k=2"])
  assert len(capsys.readouterr().out.splitlines()) == 2


def test_texts_are_cut_as_the_training_texts_were(tmp_path):
  words = ["sky", "sea", "红色", "new"]
  encoder = make(words=words, tokenizer="icu")
  encoder.save(tmp_path / "e")
  loaded = udh_jax.load_encoder(tmp_path / "e")
  texts = ["Blue SKY, red sea!", "红色连衣裙", ["new", "sea"]]
  expected = encoder.texts(np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]))
  np.testing.assert_array_equal(loaded.texts(texts), expected)
  assert loaded.words_of("Sky-SEA") == ["sky", "sea"]
  # By blanks and commas these would be other words, so the cutting is part of what the digest says.
  assert make(words=words).digest != encoder.digest == loaded.digest


def test_encoders_of_earlier_versions_are_read_as_they_were(encoder, tmp_path):
  assert encoder.words_of("new york, sea,") == ["new york", "sea"]
  assert encoder.words_of("sky  sea") == ["sky", "sea"]
  encoder.save(tmp_path / "e")
  path = tmp_path / "e" / "config.json"
  about = json.loads(path.read_text())
  for name in ("tokenizer", "image_head"):
    del about[name]
  path.write_text(json.dumps(about))
  assert udh_jax.load_encoder(tmp_path / "e").digest == about["digest"]
  path.write_text(json.dumps(about | {"tokenizer": "blanks"}))
  with pytest.raises(InputError, match="its field tokenizer is 'blanks', expected '' or 'icu'"):
    udh_jax.load_encoder(tmp_path / "e")


def test_a_perceptron_may_stand_on_the_backbone(rng, tmp_path):
  encoder = make(**PICTURES, image_head="perceptron")
  pictures = rng.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
  encoder.save(tmp_path / "e")
  loaded = udh_jax.load_encoder(tmp_path / "e")
  np.testing.assert_array_equal(loaded.images(pictures), encoder.images(pictures))
  layers = encoder.variables["params"]["image_layers"]
  assert set(layers) == {"hidden", "output"} and layers["hidden"]["kernel"].shape[1] == 9


def test_both_networks_read_scaled_inputs_and_images_may_be_turned_before(rng):
  encoder = make(directions=3)
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), dict(encoder.variables)
  )
  encoder = PairEncoder(variables, encoder.about)

  def outputs(rows, side):
    scaling, layers = variables["scaling"][side], variables["params"][side]
    rows = rows @ scaling["directions"] if side == "image_layers" else rows
    rows = (rows - scaling["mean"]) * scaling["scale"]
    hidden = np.maximum(rows @ layers["hidden"]["kernel"] + layers["hidden"]["bias"], 0)
    return hidden @ layers["output"]["kernel"] + layers["output"]["bias"]

  images, texts = rng.normal(size=(40, 5)), rng.normal(size=(40, 4))
  for codes, found in (
    (encoder.images(images), outputs(images, "image_layers")),
    (encoder.texts(texts), outputs(texts, "text_layers")),
  ):
    clear = np.abs(found) > 1e-4
    signs = np.unpackbits(codes, axis=1)[:, :12]
    np.testing.assert_array_equal(signs[clear], (found >= 0)[clear])


def test_a_pair_encoder_can_be_pickled_and_compiles_few_sizes(encoder, rng):
  images = rng.standard_normal((8, encoder.about["image_width"])).astype(np.float32)
  copied = pickle.loads(pickle.dumps(encoder))
  np.testing.assert_array_equal(copied.images(images), encoder.images(images))
  for count in (5, 6, 7, 8):
    np.testing.assert_allclose(
      copied.outputs(images[:count]), copied.outputs(images)[:count], rtol=1e-5, atol=1e-6
    )
  assert copied._of_images._cache_size() == 1
