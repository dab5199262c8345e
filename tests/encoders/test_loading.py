"""Where encoders are found, and what is refused of damaged ones."""

import json
import resource
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

import udh_jax
from udh_jax.encoders.loading import encoder_of, find_encoder, load_encoder
from udh_jax.errors import InputError
from udh_jax.models.weights import save_weights
from udh_jax.retrieval.index import HammingIndex


@pytest.fixture(params=["image", "pair"])
def encoder(request, image_encoder, pair_encoder):
  return image_encoder if request.param == "image" else pair_encoder


def same(a, b):
  ours, others = (
    jax.tree.leaves_with_path(dict(a.variables)),
    jax.tree.leaves_with_path(dict(b.variables)),
  )
  return a.digest == b.digest and all(
    path == other_path and np.asarray(leaf).dtype == np.asarray(other).dtype
    and np.array_equal(leaf, other)
    for (path, leaf), (other_path, other) in zip(ours, others, strict=True)
  )  # fmt: skip


def test_a_run_s_folder_stands_for_its_only_encoder(encoder, tmp_path):
  run = tmp_path / "run"
  encoder.save(run / "encoder_12bits")
  (run / "config.json").write_text("{}")  # the run's own
  (run / "stages").mkdir()
  for source in (run, run / "encoder_12bits", str(run)):
    assert same(load_encoder(source), encoder)
    assert same(load_encoder(source, 12), encoder)
    with pytest.raises(InputError, match="12"):
      load_encoder(source, 16)
  assert find_encoder(run) == str(run / "encoder_12bits")
  shutil.copytree(run / "encoder_12bits", run / "encoder_8bits")
  with pytest.raises(InputError, match="holds encoder_12bits, encoder_8bits; name one of these"):
    load_encoder(run)
  assert same(load_encoder(run, 12), encoder)


def test_what_is_no_encoder_is_refused_with_what_would_be_one(tmp_path):
  (tmp_path / "stages").mkdir()
  (tmp_path / "file").write_text("")
  for source in (tmp_path, tmp_path / "none", tmp_path / "file"):
    with pytest.raises(InputError, match=r"holds no encoder|is not a folder"):
      load_encoder(source)


def test_a_relative_place_is_found_from_the_root_on(pair_encoder, tmp_path, monkeypatch):
  pair_encoder.save(tmp_path / "enc")
  monkeypatch.chdir(tmp_path)
  assert find_encoder("enc") == str(tmp_path / "enc")
  monkeypatch.setenv("HOME", str(tmp_path))
  assert find_encoder("~/enc") == str(tmp_path / "enc")
  assert find_encoder("hf-hub:someone/codes") == "hf-hub:someone/codes"


def test_a_moved_encoder_is_asked_for(pair_encoder, tmp_path):
  about = {"encoder": {"source": str(tmp_path / "old"), "digest": pair_encoder.digest}}
  index = HammingIndex(np.zeros((1, 2), np.uint8), ["a"], num_bits=12, about=about)
  with pytest.raises(InputError, match=r"old.* was moved, say with --encoder where it is now"):
    encoder_of(index)
  pair_encoder.save(tmp_path / "new")
  assert same(encoder_of(index, str(tmp_path / "new")), pair_encoder)
  for note in ([], "text", {}, {"source": 3, "digest": "x"}, {"source": "x"}):
    index.about["encoder"] = note
    with pytest.raises(InputError, match="note on its encoder is damaged"):
      encoder_of(index)


CONTENTS = ["", "{", "[]", "3", "null", '"text"', "[" * 100_000, '{"format": []}', '{"format": {}}']


@pytest.mark.parametrize("content", CONTENTS)
def test_a_configuration_that_is_none_is_named(pair_encoder, tmp_path, content):
  pair_encoder.save(tmp_path)
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(InputError, match=r"config\.json is damaged") as error:
    load_encoder(tmp_path)
  assert len(str(error.value)) < 400


def test_every_field_that_decides_the_codes_has_to_be_there_and_of_its_kind(encoder, tmp_path):
  encoder.save(tmp_path)
  whole = json.loads((tmp_path / "config.json").read_text())
  spare = {"labels_used", "method", "scores"}
  later = {"tokenizer", "image_head"}  # encoders of earlier versions are without
  for field in whole.keys() - spare:
    less = {name: value for name, value in whole.items() if name != field}
    wrong = [
      *([] if field in later else [less]),
      *(whole | {field: value} for value in (None, [[]], {}, -1, 1e400, "\udcff", 3.5)),
    ]
    for record in wrong:
      (tmp_path / "config.json").write_text(json.dumps(record))
      with pytest.raises(InputError) as error:
        load_encoder(tmp_path)
      assert field in str(error.value) or "checksum" in str(error.value), record
      assert str(tmp_path) in str(error.value)


def test_tensors_of_another_name_shape_or_type_are_refused(encoder, tmp_path):
  encoder.save(tmp_path)
  file = tmp_path / ("hash_layer" if encoder.about["backbone"] else "networks")
  file = file.with_suffix(".safetensors")
  tensors = load(file.read_bytes())
  name = next(iter(tensors))
  for changed, words in (
    ({**tensors, name: tensors[name].view(np.int32)}, f"its tensor {name} is int32"),
    ({**tensors, name: tensors[name].reshape(1, -1)}, f"its tensor {name} is float32 of shape"),
    ({key: value for key, value in tensors.items() if key != name}, f"it has no tensor {name}"),
    ({**tensors, "more": tensors[name]}, "it has a tensor more too many"),
    ({**tensors, name: tensors[name] + 1}, "checksum"),
  ):
    file.write_bytes(save(changed))
    with pytest.raises(InputError, match=words):
      load_encoder(tmp_path)


def test_any_byte_that_is_altered_is_refused_or_changes_no_code(encoder, tmp_path):
  encoder.save(tmp_path)
  files = {file: file.read_bytes() for file in sorted(tmp_path.iterdir())}

  @settings(derandomize=True, max_examples=150, deadline=None)
  @given(st.data())
  def attempt(draw):
    file = draw.draw(st.sampled_from(sorted(files)))
    data = bytearray(files[file])
    place = draw.draw(st.integers(0, min(len(data), 3000) - 1))  # headers come first
    data[place] ^= draw.draw(st.integers(1, 255))
    data = data[: draw.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]
    try:
      file.write_bytes(data)
      assert same(udh_jax.load_encoder(tmp_path), encoder)
    except InputError as error:
      assert len(str(error).splitlines()) == 1 and str(tmp_path) in str(error)
    finally:
      file.write_bytes(files[file])

  attempt()


def test_a_full_disk_leaves_the_encoder_that_was_there(encoder, tmp_path):
  folder = tmp_path / "encoder"
  encoder.save(folder)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  for limit in (10, min(map(len, before.values())) + 1, max(map(len, before.values())) - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
      with pytest.raises(InputError, match="cannot be written to"):
        encoder.save(folder)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
  encoder.save(folder)
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_equal_weights_make_equal_files_in_every_process(image_encoder, tmp_path):
  """safetensors orders its metadata by a hash that differs from process to process."""
  save_weights("small_convnet", image_encoder.variables["backbone"], tmp_path / "a.safetensors")
  data = (tmp_path / "a.safetensors").read_bytes()
  header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
  assert list(header["__metadata__"]) == ["architecture", "naming"]
  names = [name for name in header if name != "__metadata__"]
  assert names == sorted(names)
