"""Search from the command line for several pictures, into files, and within a radius by itself."""

import csv
import importlib.util
import json
import os

import numpy as np
import pytest
from PIL import Image

from udh_jax.commands import search
from udh_jax.data.pictures import read_picture
from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.image import Encoder
from udh_jax.retrieval import HammingIndex


@pytest.fixture(scope="module")
def collection(tmp_path_factory, small_encoder):
  root = tmp_path_factory.mktemp("collection")
  folder = root / "pictures"
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(9):
    small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
    small.resize((40, 50)).save(folder / f"{i}, ä.png")
  encoder = small_encoder()
  encoder.save(root / "encoder")
  encode_folder(encoder, folder, root / "a.index", source=str(root / "encoder"))
  (root / "broken.png").write_bytes(b"none")
  return root


def lines(text):
  return [json.loads(line) for line in text.splitlines()]


def test_files_and_folders_as_each_alone(collection, capsys):
  index, folder = f"--index={collection / 'a.index'}", collection / "pictures"
  alone = []
  for name in sorted(os.listdir(folder)):
    search.main([index, f"--image={folder / name}", "--json", "-k4"])
    alone += lines(capsys.readouterr().out)
  search.main([index, "--json", "-k4", "--image", str(folder)])
  together = lines(capsys.readouterr().out)
  assert together == alone
  assert len(together) == 9
  first, *_, last = sorted(os.listdir(folder))
  search.main([index, "--json", "-k4", "--image", str(folder / last), str(folder / first)])
  assert lines(capsys.readouterr().out) == [alone[-1], alone[0]]


def ranked(encoder, index, picture):
  """All of the index by what the encoder says of a picture, as plain sums of signed outputs."""
  (outputs,) = encoder.outputs(read_picture(picture, encoder.about["picture_size"])[None])
  bits = np.unpackbits(index.codes, axis=1, count=index.num_bits)
  distances = (bits != (outputs >= 0)).sum(axis=1)
  order = np.argsort(-(np.where(bits, 1.0, -1.0) @ outputs.astype(np.float64)), kind="stable")
  return [(index.names[i], int(distances[i])) for i in order]


@pytest.fixture(scope="module")
def spread(collection, small_encoder):
  """The same pictures by an encoder of which half of the bits are set."""
  plain, folder = small_encoder(), collection / "pictures"
  side = plain.about["picture_size"]
  outputs = plain.outputs(np.stack([read_picture(path, side) for path in folder.iterdir()]))
  layer = plain.variables["hash"] | {"bias": -np.quantile(outputs, 0.56, axis=0)}
  encoder = Encoder({**plain.variables, "hash": layer}, plain.about)
  encoder.save(collection / "spread")
  file = collection / "spread.index"
  encode_folder(encoder, folder, file, source=str(collection / "spread"))
  return encoder, file


@pytest.mark.parametrize("options", [["-k4"], ["--radius=5"], ["--radius=5", "-k2"]])
def test_an_asymmetric_search_is_in_the_order_of_the_outputs(collection, spread, capsys, options):
  encoder, file = spread
  folder, index = collection / "pictures", HammingIndex.load(file)
  search.main([f"--index={file}", "--json", "--asymmetric", *options, "--image", str(folder)])
  records, unlike = lines(capsys.readouterr().out), 0
  for record in records:
    expected = ranked(encoder, index, record["image"])
    if "--radius=5" in options:
      expected = [item for item in expected if item[1] <= 5]
    expected = expected[: {"-k4": 4, "-k2": 2}.get(options[-1])]
    assert [(item["name"], item["distance"]) for item in record["neighbours"]] == expected
    unlike += expected != sorted(expected, key=lambda item: item[1])
  assert len(records) == 9
  assert unlike > 0 or "-k2" in options  # another order than by distance, somewhere


def test_a_picture_that_cannot_be_read_is_said_so_among_others(collection, capsys, failing):
  index, broken = f"--index={collection / 'a.index'}", str(collection / "broken.png")
  good = str(collection / "pictures" / "1, ä.png")
  search.main([index, "--json", "-k2", "--image", broken, good])
  printed = capsys.readouterr()
  bad, found = lines(printed.out)
  assert bad["image"] == broken and bad["error"] and bad["neighbours"] == []
  assert len(found["neighbours"]) == 2
  assert "1 of 2 pictures cannot be read" in printed.err
  assert "None of the 2 pictures" in failing(search.main, [index, "--image", broken, broken])


def test_output_is_json_lines_or_a_table(collection, tmp_path):
  folder = collection / "pictures"
  arguments = [f"--index={collection / 'a.index'}", "--radius=5", "--image", str(folder)]
  search.main([*arguments, str(collection / "broken.png"), f"--output={tmp_path / 'a.jsonl'}"])
  records = lines((tmp_path / "a.jsonl").read_text())
  search.main([*arguments, str(collection / "broken.png"), f"--output={tmp_path / 'a.csv'}"])
  rows = list(csv.DictReader((tmp_path / "a.csv").open(encoding="utf-8")))
  expected = []
  for record in records:
    for rank, item in enumerate(record["neighbours"], 1):
      assert item["distance"] <= 5
      expected.append((record["image"], str(rank), str(item["distance"]), item["name"]))
    if "error" in record:
      expected.append((record["image"], "", "", ""))
  assert [(row["query"], row["rank"], row["distance"], row["name"]) for row in rows] == expected
  assert len({row["query"] for row in rows}) == 10


def test_the_radius_is_chosen_and_said(collection, capsys, failing):
  index, folder = f"--index={collection / 'a.index'}", str(collection / "pictures")
  search.main([index, "--radius=auto", "--strangers=0.2", "--json", "--image", folder])
  printed = capsys.readouterr()
  assert "is expected to be near by chance" in printed.err
  for record in lines(printed.out):
    assert 0 <= record["expected_strangers"] <= 1
    assert all(item["distance"] <= record["radius"] for item in record["neighbours"])
  one = [index, "--image", folder]
  for radius in ("near", "-1", "2.5"):
    assert "give a whole number from 0 on, or auto" in failing(
      search.main, [*one, f"--radius={radius}"]
    )
  assert "between 0 and 1" in failing(search.main, [*one, "--radius=auto", "--strangers=2"])
  assert "without --radius auto" in failing(search.main, [*one, "--strangers=0.1"])
  assert "one picture's neighbours" in failing(search.main, [*one, "--gallery=/x.png"])


def test_a_gallery_without_matplotlib_is_refused_before_anything_is_read(
  collection, tmp_path, failing, monkeypatch
):
  real = importlib.util.find_spec
  found = lambda name, *rest: None if name == "matplotlib" else real(name, *rest)  # noqa: E731
  monkeypatch.setattr("udh_jax.extras.importlib.util.find_spec", found)
  monkeypatch.setattr(search, "_searched", lambda _: pytest.fail("the index was read"))
  asked = [f"--index={collection / 'a.index'}", f"--image={collection / 'pictures' / '1, ä.png'}"]
  line = failing(search.main, [*asked, f"--gallery={tmp_path / 'a.png'}"])
  assert 'matplotlib is not installed; run pip install "udh_jax[report]"' in line


def test_options_that_would_do_nothing_are_refused(collection, tmp_path, failing):
  picture = str(collection / "pictures" / "1, ä.png")
  asked = [f"--index={collection / 'a.index'}", f"--image={picture}"]
  output = f"--output={tmp_path / 'a.jsonl'}"
  assert "give one of the two" in failing(search.main, [*asked, "--json", output])
  line = failing(search.main, [*asked, f"--images={collection / 'pictures'}"])
  assert "--images is given without --gallery" in line
  line = failing(search.main, [*asked, f"--gallery={tmp_path / 'found.pdf'}"])
  assert "found.pdf; it is drawn as PNG" in line
  assert not (tmp_path / "a.jsonl").exists()


def test_no_file_is_written_over_another(collection, tmp_path, failing):
  index, picture = str(collection / "a.index"), str(collection / "pictures" / "1, ä.png")
  before = (collection / "a.index").read_bytes()
  asked = ["--index", index, "--image", picture]
  for flag, path in (("--output", index), ("--gallery", index), ("--output", picture)):
    assert f"{path} would be written over" in failing(search.main, [*asked, flag, path])
  both = str(tmp_path / "a.png")
  line = failing(search.main, [*asked, "--output", both, "--gallery", both])
  assert f"--output and --gallery are both {both}" in line
  assert (collection / "a.index").read_bytes() == before
