"""Duplicates from a folder of pictures to groups, reports and a page."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from udh_jax.commands import duplicates
from udh_jax.duplicates import find
from udh_jax.duplicates.find import find_duplicates
from udh_jax.encoders.folder import encode_folder
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex


def scene(seed, size=(320, 240)):
  rng = np.random.default_rng(seed)
  layers = [
    np.asarray(
      Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
    ).astype(float)
    for n in (4, 10, 24)
  ]
  return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


@pytest.fixture(scope="module")
def collection(tmp_path_factory, small_encoder):
  """A folder of twelve scenes with copies of two of them, and its index."""
  root = tmp_path_factory.mktemp("collection")
  folder = root / "pictures"
  (folder / "in").mkdir(parents=True)
  for seed in range(12):
    scene(seed).save(folder / f"{seed}.jpg", quality=92)
  scene(3).resize((640, 480)).save(folder / "in" / "larger & <best>.png")
  ImageOps.mirror(scene(3)).save(folder / "in" / "mirrored.jpg", quality=70)
  scene(3).crop((10, 5, 318, 230)).save(folder / "in" / "cut.jpg", quality=90)
  Image.eval(scene(5), lambda x: min(255, int(1.3 * x))).save(folder / "bright.jpg", quality=30)
  shutil.copy(folder / "5.jpg", folder / "same.jpg")
  for name, colour in (("plain 1.png", 90), ("plain 2.png", 90)):
    Image.new("RGB", (40, 30), (colour, 0, 0)).save(folder / name)
  encoder = small_encoder()
  encode_folder(encoder, folder, root / "a.index")
  return root


EXPECTED = [
  ["in/larger & <best>.png", "3.jpg", "in/mirrored.jpg", "in/cut.jpg"],
  ["5.jpg", "same.jpg", "bright.jpg"],
  ["plain 1.png", "plain 2.png"],
]


def test_groups_are_the_copies_best_first(collection):
  before = sorted(path.name for path in (collection / "pictures").rglob("*"))
  index = HammingIndex.load(collection / "a.index")
  found = find_duplicates(index, collection / "pictures")
  assert [[copy.name for copy in group] for group in found.groups] == EXPECTED
  assert (found.num_items, found.unreadable) == (19, {})
  best = found.groups[0][0]
  assert (best.width, best.height) == (640, 480)
  assert best.size == (collection / "pictures" / best.name).stat().st_size
  assert sorted(path.name for path in (collection / "pictures").rglob("*")) == before


def test_names_of_one_file_are_no_copies(tmp_path, capsys, small_encoder):
  folder = tmp_path / "pictures"
  folder.mkdir()
  scene(1).save(folder / "zebra.png")
  scene(2).save(folder / "other.png")
  (folder / "a link.png").symlink_to("zebra.png")
  os.link(folder / "zebra.png", folder / "hard.png")
  encode_folder(small_encoder(), folder, tmp_path / "a.index")
  index = HammingIndex.load(tmp_path / "a.index")
  found = find_duplicates(index, folder)
  assert found.groups == [] and found.other_names == 2
  shutil.copy(folder / "zebra.png", folder / "copy.png")
  encode_folder(small_encoder(), folder, tmp_path / "a.index", update=True)
  duplicates.main([f"--index={tmp_path / 'a.index'}", "--csv=-"])
  printed = capsys.readouterr()
  names = [row["name"] for row in csv.DictReader(printed.out.splitlines()[-3:])]
  assert names == ["copy.png", "hard.png"]  # never the link, and the file by one name
  assert "1 group; 1 of 5" in printed.err and "2 more names are links" in printed.err


@pytest.mark.slow
def test_codes_alone_make_no_pair(collection, monkeypatch):
  """All looks and codes equal: the pictures decide."""
  index = HammingIndex.load(collection / "a.index")
  columns = dict(index.columns)
  columns["look"] = np.zeros_like(columns["look"])
  same = HammingIndex(np.zeros_like(index.codes), index.names, num_bits=12, columns=columns)
  found = find_duplicates(same, collection / "pictures")
  names = [{copy.name for copy in group} for group in found.groups]
  # Equal looks are no candidates for mirrored copies.
  expected = [set(group) - {"in/mirrored.jpg"} for group in EXPECTED]
  assert sorted(map(sorted, names)) == sorted(map(sorted, expected))
  assert found.num_candidates > 100
  monkeypatch.setattr(find, "_same", lambda a, b: np.ones(len(a), bool))
  held, unjoined = [], find._unjoined
  monkeypatch.setattr(
    find, "_unjoined", lambda pairs, groups: held.append(len(pairs)) or unjoined(pairs, groups)
  )
  found = find_duplicates(same, collection / "pictures")
  assert len(found.groups[0]) == 19
  assert found.num_candidates == 18
  assert sum(held) == 0  # not each with each, which would be 171 pairs


def test_copies_beyond_the_reach_are_found_by_the_encoders_code(collection):
  index = HammingIndex.load(collection / "a.index")
  columns = dict(index.columns)
  columns["look"] = columns["look"].copy()
  row = index.find("same.jpg")[0]
  columns["look"][row] ^= np.uint8([255, 3] + [0] * 11)  # 10 bits away
  changed = HammingIndex(index.codes, index.names, num_bits=12, columns=columns)
  found = find_duplicates(changed, collection / "pictures", reach=0)
  assert ["5.jpg", "same.jpg"] in [[copy.name for copy in group][:2] for group in found.groups]
  codes = index.codes.copy()
  codes[row] ^= np.uint8([255, 240])  # nor is it near by code
  changed = HammingIndex(codes, index.names, num_bits=12, columns=columns)
  found = find_duplicates(changed, collection / "pictures", reach=0)
  assert "same.jpg" not in [copy.name for group in found.groups for copy in group]


def test_what_only_one_of_two_shows_is_a_difference_whichever_comes_first():
  header = Image.new("L", (640, 480), 255)
  draw = ImageDraw.Draw(header)
  draw.rectangle((0, 0, 640, 90), fill=40)
  for k in range(6):
    draw.rectangle((20 + 100 * k, 25, 70 + 100 * k, 65), fill=250)
  page = header.copy()
  draw = ImageDraw.Draw(page)
  for k in range(24):
    draw.rectangle(
      (40 + 90 * (k % 6), 140 + 80 * (k // 6), 90 + 90 * (k % 6), 180 + 80 * (k // 6)), 60
    )
  a, b = (
    np.asarray(x.resize((find.SIDE, find.SIDE), Image.Resampling.BOX)) for x in (header, page)
  )
  assert not find._same([a, b], [b, a]).any()
  assert find._same([a, b], [a, b]).all()


def test_plain_pictures_are_copies_only_if_they_are_as_bright():
  def plain(grey):
    return np.full((find.SIDE, find.SIDE), grey, np.uint8)

  first, second = [plain(x) for x in (0, 90, 90)], [plain(x) for x in (255, 100, 130)]
  assert find._same(first, second).tolist() == [False, True, False]


def test_pictures_that_are_gone_are_left_out(collection, tmp_path):
  folder = tmp_path / "copy"
  shutil.copytree(collection / "pictures", folder)
  (folder / "same.jpg").unlink()
  (folder / "3.jpg").write_bytes(b"no picture")
  found = find_duplicates(HammingIndex.load(collection / "a.index"), folder)
  assert set(found.unreadable) == {"same.jpg", "3.jpg"}
  assert [[copy.name for copy in group] for group in found.groups] == [
    ["in/larger & <best>.png", "in/mirrored.jpg", "in/cut.jpg"],
    ["5.jpg", "bright.jpg"],
    ["plain 1.png", "plain 2.png"],
  ]


@pytest.mark.parametrize("seed", range(3))
def test_every_pair_is_compared_or_joined_through_others(seed):
  """The order in which pairs are compared leaves none out."""
  rng = np.random.default_rng(seed)
  classes = rng.integers(0, 30, 300)
  pairs = rng.integers(0, 300, (4000, 2))
  pairs = np.column_stack([np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)])
  pairs = np.column_stack([pairs, np.zeros(len(pairs), np.int64)])
  groups, compared = find._Groups(300), 0
  for batch in find._unjoined(pairs, groups):
    assert len(batch) <= find._PAIRS
    compared += len(batch)
    for a, b, _ in batch.tolist():
      if classes[a] == classes[b]:
        groups.join(a, b)
  parent = np.arange(300)  # the same by hand
  for _ in range(300):
    for a, b, _ in pairs:
      if classes[a] == classes[b]:
        parent[a] = parent[b] = min(parent[a], parent[b])
    if all(parent[a] == parent[b] for a, b, _ in pairs if classes[a] == classes[b]):
      break
  assert [groups.of(i) for i in range(300)] == parent.tolist()
  sets = {frozenset(items) for items in groups.sets()}
  assert sets == {
    frozenset(np.flatnonzero(parent == p).tolist()) for p in set(parent) if (parent == p).sum() > 1
  }
  assert compared <= len(pairs)


class Watched:
  """Pairs that note how many have been taken."""

  def __init__(self, pairs):
    self.pairs, self.taken = pairs, 0

  def __len__(self):
    return len(self.pairs)

  def __getitem__(self, part):
    self.taken = max(self.taken, min(part.stop, len(self.pairs)))
    return self.pairs[part]


def test_few_pairs_wait_at_a_time():
  """The book-keeping of a batch does not grow with the number of pairs."""
  n = 40_000
  pairs = np.column_stack([np.arange(n), np.arange(n) + n, np.zeros(n, np.int64)])
  watched, given, most = Watched(pairs), 0, 0
  for batch in find._unjoined(watched, find._Groups(2 * n)):
    most = max(most, watched.taken - given)
    given += len(batch)
  assert given == n
  assert most <= find._PAIRS * 40


@pytest.mark.parametrize("joining", [False, True])
def test_batches_are_of_different_pictures_and_large(joining):
  """Pairs that come sorted by their first picture, as those of one distance do."""
  a, b = np.triu_indices(200, 1)
  pairs = np.column_stack([a, b, np.zeros(len(a), np.int64)])
  groups, seen, batches = find._Groups(200), set(), 0
  for batch in find._unjoined(pairs, groups):
    roots = [groups.of(item) for item in batch[:, :2].ravel().tolist()]
    assert len(set(roots)) == len(roots)  # none needless, none in common
    rows = set(map(tuple, batch.tolist()))
    assert not rows & seen
    seen |= rows
    batches += 1
    if joining:
      for a, b, _ in batch.tolist():
        groups.join(a, b)
  assert seen <= set(map(tuple, pairs.tolist()))
  if joining:
    assert len(seen) == 199  # what a tree of all of them takes
  else:
    assert len(seen) == len(pairs) and batches < 600  # 199 at least, as each picture has 199 pairs


def test_memory_goes_by_the_hits_and_not_by_the_queries(monkeypatch):
  """Looks that are all near each other without being equal, as those of one camera's frames."""
  rng = np.random.default_rng(0)
  looks = rng.integers(0, 256, (1, 2, 13), np.uint8) ^ np.packbits(
    rng.random((300, 2, 104)) < 0.12, axis=2
  )
  index = HammingIndex(np.arange(600, dtype=np.uint8).reshape(300, 2), [""] * 300)
  index = HammingIndex(index.codes, index.names, columns={"look": looks})
  held, ordered = [], find._ordered
  monkeypatch.setattr(find, "_ordered", lambda a, *rest: held.append(len(a)) or ordered(a, *rest))
  monkeypatch.setattr(find, "_neighbours_by_code", lambda *_: [np.zeros((0, 4), np.int64)])

  def candidates(hits):
    monkeypatch.setattr(find, "_HITS", hits)
    held.clear()
    batches = find._candidates(index, 28, find._Groups(300), lambda text: None)
    pairs = [tuple(pair) for batch in batches for pair in batch.tolist()]
    assert len(pairs) == len(set(pairs))
    return set(pairs), max(held)

  everything, most = candidates(10**9)
  assert most > 20_000
  assert candidates(2000) == (everything, pytest.approx(1500, abs=500))
  assert candidates(1)[0] == everything  # one query at a time, however many hits it has


def test_the_set_of_many_items_is_that_of_each():
  rng = np.random.default_rng(0)
  groups = find._Groups(500)
  for a, b in rng.integers(0, 500, (300, 2)).tolist():
    groups.join(a, b)
    items = rng.integers(0, 500, (7, 2))
    expected = [[groups.of(item) for item in row] for row in items.tolist()]
    assert groups.roots(items).tolist() == expected


def test_reports_and_page(collection, tmp_path, capsys, failing):
  files = {kind: tmp_path / f"groups.{kind}" for kind in ("json", "csv", "html")}
  arguments = [f"--index={collection / 'a.index'}"]
  outputs = [f"--json={files['json']}", f"--csv={files['csv']}", f"--page={files['html']}"]
  duplicates.main([*arguments, *outputs])
  out = capsys.readouterr().out
  assert "3 groups; 6 of 19 pictures are copies of better ones" in out
  record = json.loads(files["json"].read_text())
  assert [[file["name"] for file in group["files"]] for group in record["groups"]] == EXPECTED
  assert [group["best"] for group in record["groups"]] == [group[0] for group in EXPECTED]
  rows = list(csv.DictReader(files["csv"].open()))
  assert [row["name"] for row in rows] == [name for group in EXPECTED for name in group]
  assert [row["name"] for row in rows if row["best"] == "1"] == [group[0] for group in EXPECTED]
  page = files["html"].read_text()
  assert page.count("<img ") == 9
  assert "larger &amp; &lt;best&gt;.png" in page
  assert "<best>" not in page
  assert "http" not in page.replace("http-equiv", "")
  duplicates.main([*arguments, "--json=-"])
  printed = capsys.readouterr()
  assert json.loads(printed.out) == record
  assert "3 groups" in printed.err
  assert "is not a folder" in failing(duplicates.main, [*arguments, "--images=/nowhere"])
  assert "reach is 99" in failing(duplicates.main, [*arguments, "--reach=99"])
  assert "cannot both print" in failing(duplicates.main, [*arguments, "--json=-", "--csv=-"])


def test_an_index_without_looks_is_refused(tmp_path):
  index = HammingIndex(np.zeros((2, 1), np.uint8), ["a", "b"])
  with pytest.raises(InputError, match="does not say what its pictures look like"):
    find_duplicates(index, tmp_path)


def test_an_empty_index_and_one_of_one_picture(collection):
  index = HammingIndex.load(collection / "a.index")
  for count in (0, 1):
    part = index.remove(list(index.names)[count:])
    found = find_duplicates(part, collection / "pictures")
    assert (found.groups, found.num_items) == ([], count)
