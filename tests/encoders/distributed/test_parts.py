"""Listings cut into parts, and what is made of the parts' codes; without Ray."""

import json
import os

import numpy as np
import pytest

from udh_jax.encoders.distributed import encode_distributed
from udh_jax.encoders.distributed.file_systems import file_system_of, files_in, folder_of, kind_of
from udh_jax.encoders.distributed.listing import make_plan, pictures_of, read_plan
from udh_jax.encoders.distributed.parts import (
  code_batches,
  count_unreadable,
  encode_part,
  parts_done,
  parts_to_do,
  parts_to_index,
  parts_to_store,
)
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def encode_all(encoder, plan, output, **options):
  return [encode_part(encoder, plan, output, n, **options) for n in parts_to_do(output, plan)]


def found_in(output):
  batches = list(code_batches(output))
  names = [name for rows in batches for name in rows.names]
  codes = np.concatenate([rows.codes for rows in batches])
  assert len(names) == len(set(names))
  return dict(zip(names, codes.tolist(), strict=True))


def parquet(path, table, **options):
  pq.write_table(pa.table(table), path, **options)
  return str(path)


def test_a_folder_of_pictures(encoder, pictures, expected, tmp_path):
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(pictures), output, source="runs/x", part_size=10)
  assert [part.stop - part.start for part in plan.parts] == [10, 10, 10, 8]
  assert plan.num_pictures == 38 and read_plan(output) == plan
  with pytest.raises(InputError, match=r"4 of 4 parts of .* not encoded yet"):
    list(code_batches(output))
  done = encode_all(encoder, plan, output, batch_size=4, threads=2)
  assert [part.number for part in done] == [0, 1, 2, 3]
  assert sum(part.encoded for part in done) == 37
  assert sum(part.unreadable for part in done) == count_unreadable(output) == 1
  assert found_in(output) == expected
  assert list(found_in(output)) == sorted(expected)
  (bad,) = (tmp_path / "codes" / "unreadable").iterdir()
  assert pq.read_table(bad)["name"].to_pylist() == ["group 0/broken.jpg"]
  assert parts_to_do(output, plan) == []


def test_lost_parts_are_done_again_and_others_are_not(encoder, pictures, expected, tmp_path):
  output = str(tmp_path)
  plan = make_plan(encoder, str(pictures), output, part_size=10)
  encode_all(encoder, plan, output)
  times = {n: (tmp_path / "codes" / f"part-{n:08d}.parquet").stat().st_mtime_ns for n in range(4)}
  (tmp_path / "codes" / "part-00000002.parquet").unlink()
  (tmp_path / "codes" / ".part-00000001.parquet.abc.tmp").write_bytes(b"half")
  plan = make_plan(encoder, str(pictures), output)  # the first plan counts
  assert len(plan.parts) == 4
  assert [part.number for part in encode_all(encoder, plan, output)] == [2]
  assert found_in(output) == expected
  for n in (0, 1, 3):
    file = tmp_path / "codes" / f"part-{n:08d}.parquet"
    assert file.stat().st_mtime_ns == times[n]


@pytest.mark.parametrize("rows_per_group", [3, 100])
def test_a_listing_of_paths(encoder, pictures, expected, tmp_path, rows_per_group):
  names = sorted(expected)
  folder = tmp_path / "listing"
  folder.mkdir()
  parquet(folder / "a.parquet", {"path": names[:20]}, row_group_size=rows_per_group)
  parquet(folder / "b.parquet", {"more": range(17), "path": names[20:]})
  (folder / "_SUCCESS").touch()
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(folder), output, root=str(pictures), part_size=8)
  assert [part.stop - part.start for part in plan.parts] == [8, 8, 4, 8, 8, 1]
  encode_all(encoder, plan, output)
  assert found_in(output) == expected


def test_a_text_file_of_paths(encoder, pictures, expected, tmp_path):
  listing = tmp_path / "listing.txt"
  whole = [str(pictures / name) for name in sorted(expected)]
  lines = [os.fsencode(name) for name in whole[:3]] + [
    b"",
    os.fsencode("relative.png"),
    b"\xff.png",
  ]
  listing.write_bytes(b"\r\n".join(lines))
  (tmp_path / "relative.png").write_bytes((pictures / "group 0" / "000 ü.png").read_bytes())
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(listing), output, part_size=2)
  encode_all(encoder, plan, output)
  found = found_in(output)
  assert list(found) == [*whole[:3], "relative.png"]
  assert found["relative.png"] == expected["group 0/000 ü.png"]
  assert count_unreadable(output) == 1  # the name that is not UTF-8
  listing.write_bytes(b"other.png\n")
  with pytest.raises(InputError, match="codes of another listing"):
    make_plan(encoder, str(listing), output)


def test_a_byte_order_mark_is_no_part_of_a_path(encoder, pictures, expected, tmp_path):
  names = sorted(expected)[:2]
  (tmp_path / "l.txt").write_text("\r\n".join(names), "utf-8-sig")
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(tmp_path / "l.txt"), output, root=str(pictures))
  encode_all(encoder, plan, output)
  assert found_in(output) == {name: expected[name] for name in names}


@pytest.mark.parametrize("form", ["name and bytes", "image"])
def test_pictures_within_parquet(encoder, pictures, expected, tmp_path, form):
  names = sorted(expected)
  data = [(pictures / name).read_bytes() for name in names]
  data[5] = b"damaged"
  if form == "image":
    table = {"image": [{"bytes": d, "path": n} for n, d in zip(names, data, strict=True)]}
  else:
    table = {"name": names, "bytes": data}
  listing = parquet(tmp_path / "data.parquet", table | {"label": range(37)}, row_group_size=5)
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, listing, output, part_size=12)
  assert [part.stop - part.start for part in plan.parts] == [10, 10, 10, 7]  # whole row groups
  encode_all(encoder, plan, output)
  bad = names[5]
  assert found_in(output) == {name: code for name, code in expected.items() if name != bad}
  table = pq.read_table(tmp_path / "codes" / "unreadable" / "part-00000000.parquet")
  assert table["name"].to_pylist() == [bad]


@pytest.mark.parametrize("form", ["name and bytes", "image", "bytes"])
@pytest.mark.parametrize("group", [2, 100])
def test_rows_with_bytes_are_pictures_of_their_own(
  encoder, pictures, expected, tmp_path, capsys, form, group
):
  """As Hugging Face writes them: without a path, or with a bare file name that many have."""
  pytest.importorskip("ray")
  first, second, third = sorted(expected)[:3]
  data = [(pictures / name).read_bytes() for name in (first, second, third, first, second)]
  names = [None, "image.png", "", "own.png", "image.png"]
  called = ["{}/0", "{}/1/image.png", "{}/2", "own.png", "{}/4/image.png"]
  table: dict = {"bytes": data}
  if form == "image":
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": d, "path": n} for n, d in zip(names, data, strict=True)]
    table = {"image": pa.array(rows, struct)}
  elif form == "bytes":
    called = [f"{{}}/{row}" for row in range(5)]
  else:
    table["name"] = names
  (tmp_path / "tables").mkdir()
  listing = parquet(tmp_path / "tables" / "a.parquet", table, row_group_size=group)
  codes = [expected[name] for name in (first, second, third, first, second)]
  for number, images in enumerate((listing, str(tmp_path / "tables"))):
    output = str(tmp_path / f"codes {number}")
    plan = make_plan(encoder, images, output)
    encode_all(encoder, plan, output, batch_size=2)
    assert list(found_in(output).items()) == [
      (name.format("a.parquet"), code) for name, code in zip(called, codes, strict=True)
    ]
    encode_distributed(encoder, images, output)  # nothing is left to do
    assert f"{output}: 5 pictures" in capsys.readouterr().out


def test_rows_that_repeat_others_are_counted_as_such(encoder, pictures, expected, tmp_path, capsys):
  pytest.importorskip("ray")
  first, second = sorted(expected)[:2]
  table = {"name": ["a", "a", "a", None, None], "path": [first, first, second, second, None]}
  listing, output = parquet(tmp_path / "l.parquet", table), str(tmp_path / "codes")
  plan = make_plan(encoder, listing, output, root=str(pictures))
  encode_all(encoder, plan, output)
  assert found_in(output) == {
    "l.parquet/0/a": expected[first],
    "l.parquet/2/a": expected[second],
    second: expected[second],
  }
  encode_distributed(encoder, listing, output, root=str(pictures))
  out = capsys.readouterr().out
  assert "1 of 5 pictures cannot be read" in out and "1 of 5 rows name a picture" in out
  assert f"{output}: 3 pictures" in out


def test_pictures_that_cannot_be_read(encoder, pictures, expected, tmp_path):
  first = sorted(expected)[0]
  paths = [first, "absent.png", first, None, "group 0", "group 0/broken.jpg"]
  names = ["a", "b", "a", "d", "e", "f"]
  listing = parquet(tmp_path / "l.parquet", {"name": names, "path": paths})
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, listing, output, root=str(pictures))
  (done,) = encode_all(encoder, plan, output)
  assert done[:3] == (0, 1, 4)
  assert found_in(output) == {"a": expected[first]}
  table = pq.read_table(tmp_path / "codes" / "unreadable" / "part-00000000.parquet")
  reasons = dict(zip(table["name"].to_pylist(), table["reason"].to_pylist(), strict=True))
  assert "No such file" in reasons["b"] and "folder" in reasons["e"]
  assert reasons["d"] == "the listing has neither its path nor its bytes"


def test_pictures_out_of_reach_are_tried_again(encoder, pictures, expected, tmp_path, monkeypatch):
  fsspec = pytest.importorskip("fsspec")
  memory = fsspec.filesystem("memory")
  names = sorted(expected)[:4]
  for name in names:
    memory.pipe(f"/bucket/{name}", (pictures / name).read_bytes())
  memory.pipe("/bucket/.hidden.png", b"")
  output = str(tmp_path)
  plan = make_plan(encoder, "memory://bucket", output, part_size=3)
  opened, failing = type(memory)._open, [names[1]]

  def refuse(self, path, *args, **kwargs):
    if any(path.endswith(name) for name in failing):
      raise OSError("the network is down")
    return opened(self, path, *args, **kwargs)

  monkeypatch.setattr(type(memory), "_open", refuse)
  monkeypatch.setattr("udh_jax.encoders.distributed.listing.time.sleep", lambda _: None)
  encode_all(encoder, plan, output)
  assert count_unreadable(output) == 1
  assert parts_to_do(output, plan) == [0]
  failing.clear()
  encode_all(encoder, plan, output)
  assert parts_to_do(output, plan) == [] and count_unreadable(output) == 0
  assert found_in(output) == {name: expected[name] for name in names}


@pytest.mark.parametrize("place", [".", "in it"])
def test_names_that_are_not_utf_8(encoder, pictures, expected, tmp_path, capsys, place):
  """They are counted once, wherever in the folder they are."""
  pytest.importorskip("ray")
  first = sorted(expected)[0]
  folder = tmp_path / "pictures" / place
  folder.mkdir(parents=True)
  for name in (b"a.png", b"b.png", b"\xff.png", b"\xfe.png"):
    (folder / os.fsdecode(name)).write_bytes((pictures / first).read_bytes())
  images, output = str(tmp_path / "pictures"), str(tmp_path / "codes")
  plan = make_plan(encoder, images, output)
  (done,) = encode_all(encoder, plan, output)
  assert (done.encoded, done.unreadable, count_unreadable(output)) == (2, 0, 2)
  assert list(found_in(output).values()) == [expected[first]] * 2
  (noted,) = (tmp_path / "codes" / "unreadable").iterdir()
  names = pq.read_table(noted)["name"].to_pylist()
  assert [name.rpartition("/")[2] for name in names] == [r"\udcfe.png", r"\udcff.png"]
  result = encode_distributed(encoder, images, output)  # nothing is left to do
  assert (result.pictures, result.unreadable) == (4, 2)
  said = capsys.readouterr().out
  assert "2 of 4 pictures cannot be read" in said and ": 2 pictures, 12 bits" in said


def test_a_note_of_an_earlier_try_is_not_counted(encoder, pictures, tmp_path):
  """A call that was stopped before its plan, then names that were mended."""
  output = tmp_path / "codes"
  listing = tmp_path / "l.txt"
  listing.write_bytes(b"\xff.png\n")
  with pytest.raises(InputError, match="no pictures in"):
    make_plan(encoder, str(listing), str(output))
  assert count_unreadable(str(output)) == 1
  make_plan(encoder, str(pictures), str(output))
  assert count_unreadable(str(output)) == 0


def test_file_names_that_pyarrow_cannot_hold(encoder, tmp_path, monkeypatch):
  output, bad = str(tmp_path / "codes"), os.fsdecode(b"\xff")
  folder = tmp_path / "tables"
  folder.mkdir()
  (folder / f"{bad}.parquet").write_bytes(b"")
  for images in (str(folder), str(tmp_path / bad)):
    with pytest.raises(InputError, match=r"\\udcff.* not UTF-8; rename") as caught:
      make_plan(encoder, images, output)
    assert "\n" not in str(caught.value)
  fsspec = pytest.importorskip("fsspec")
  memory = fsspec.filesystem("memory")
  memory.pipe(f"/badly named/{bad}.png", b"")
  with pytest.raises(InputError, match=r"^memory://badly named cannot be listed: .*UTF-8; rename"):
    make_plan(encoder, "memory://badly named", output)


def test_another_root_or_part_size_is_refused(encoder, pictures, expected, tmp_path):
  names = sorted(expected)
  listing = tmp_path / "l.txt"
  listing.write_text("".join(f"{name}\n" for name in names))
  output, root = str(tmp_path / "codes"), str(pictures)
  first = make_plan(encoder, str(listing), output, root=root, part_size=10)
  for options in ({}, {"root": root}, {"root": root + "/"}, {"part_size": 10}):
    assert make_plan(encoder, str(listing), output, **options) == first
  with pytest.raises(
    InputError, match=r"relative to .*, now --root is /elsewhere; .*another folder"
  ):
    make_plan(encoder, str(listing), output, root="/elsewhere")
  for size in (9, 11, 10_000):
    with pytest.raises(InputError, match=rf"--part-size {size} .*parts of up to 10 .*another fold"):
      make_plan(encoder, str(listing), output, part_size=size)
  for _ in range(2):  # at the first call and at the next
    with pytest.raises(InputError, match=r"--root is /elsewhere, but .* is a folder of pictures"):
      make_plan(encoder, root, str(tmp_path / "other"), root="/elsewhere")
    make_plan(encoder, root, str(tmp_path / "other"))


@pytest.mark.parametrize("form", ["folder", "text", "parquet"])
@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_names_with_marks_of_urls(encoder, pictures, expected, tmp_path, form, scheme):
  """What options of a URL look like is a part of a name where it stands in one."""
  first = sorted(expected)[0]
  names = ["100% #1.png", "a?b=c.png", "what?.png"]
  base = str(tmp_path) if scheme == "file" else f"/{form} bucket"
  fs = pytest.importorskip("fsspec").filesystem(scheme)
  for folder in ("pics", "tables?"):
    fs.makedirs(f"{base}/{folder}")
  for name in names:
    fs.pipe(f"{base}/pics/{name}", (pictures / first).read_bytes())
  url = f"{scheme}://{base.removeprefix('/') if scheme == 'memory' else base}"
  options: dict = {} if form == "folder" else {"root": f"{url}/pics"}
  images = f"{url}/pics"
  if form == "text":
    images = f"{url}/what?.txt"
    lines = [names[0], names[1], f"{url}/pics/{names[2]}"]
    fs.pipe(f"{base}/what?.txt", "\n".join(lines).encode())
    names = lines
  if form == "parquet":
    images = f"{url}/tables?"
    for number, name in enumerate(names):
      table = pa.BufferOutputStream()
      pq.write_table(pa.table({"path": [name]}), table)
      fs.pipe(f"{base}/tables?/{number}?x=y.parquet", table.getvalue().to_pybytes())
  output = f"{url}/codes{'?' if scheme == 'file' else ''}"  # fsspec moves files by patterns
  plan = make_plan(encoder, images, output, **options)
  assert make_plan(encoder, images, output, **options) == read_plan(output) == plan
  encode_all(encoder, plan, output)
  assert found_in(output) == dict.fromkeys(names, expected[first])


def test_urls_and_their_options():
  where = {
    "file:///a/what?.png": "/a/what?.png",
    "file:///a/b?c=d": "/a/b?c=d",
    "s3://bucket/a/what?.png?region=x": "bucket/a/what?.png",
    "memory://bucket/a/what?.png": "/bucket/a/what?.png",
    "s3://bucket?region=x&scheme=http": "bucket",
  }
  for url, path in where.items():
    assert file_system_of(url)[1] == path
  fs, path = file_system_of("s3://bucket/a/?region=elsewhere", "b?c=d.png")
  assert (fs.region, path) == ("elsewhere", "bucket/a/b?c=d.png")
  assert folder_of("s3://bucket/a/l?.txt?region=x") == "s3://bucket/a?region=x"
  assert folder_of("file:///a/b?c=d/l.txt") == "file:///a/b?c=d"


def test_files_of_a_folder(tmp_path):
  (tmp_path / "folder").mkdir()
  for name in (b"b", b"\xff", b"a"):
    (tmp_path / os.fsdecode(name)).write_bytes(b"")
  (tmp_path / "link").symlink_to("a")
  (tmp_path / "nowhere").symlink_to("absent")
  assert files_in(str(tmp_path)) == ["a", "b", "link", os.fsdecode(b"\xff")]
  assert files_in(str(tmp_path), "absent") == []
  with pytest.raises(InputError, match="cannot be listed"):
    files_in(str(tmp_path / "a"))
  assert [kind_of(str(tmp_path), key) for key in ("a", "folder", "nowhere")] == [
    "File",
    "Directory",
    "NotFound",
  ]


def test_an_index_of_the_parts(encoder, pictures, expected, tmp_path):
  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(pictures), output, source="runs/x", part_size=7)
  encode_all(encoder, plan, output)
  assert parts_to_index(output, tmp_path / "x.index") == 37
  index = HammingIndex.load(tmp_path / "x.index")
  assert dict(zip(index.names, index.codes.tolist(), strict=True)) == expected
  assert list(index.names) == sorted(expected)
  assert index.num_bits == 12
  assert index.about["encoder"] == {"source": "runs/x", "digest": encoder.digest}
  assert index.about["folder"] == str(pictures)


def test_a_store_of_the_parts(encoder, pictures, expected, tmp_path):
  pytest.importorskip("lancedb")
  from udh_jax.stores import create_store

  output = str(tmp_path / "codes")
  plan = make_plan(encoder, str(pictures), output, part_size=7)
  encode_all(encoder, plan, output)
  store = create_store(
    f"lancedb:{tmp_path / 'lance'}", num_bits=12, about={"encoder": {"digest": encoder.digest}}
  )
  first = next(iter(code_batches(output)))
  store.upsert(first.names[:3], np.zeros((3, 2), np.uint8))  # as if something else had been there
  for _ in range(2):
    assert parts_to_store(output, store) == 37
    names = [name for part in store.names() for name in part]
    assert names == sorted(expected)
    assert store.get(names).codes.tolist() == [expected[name] for name in names]
  other = create_store(f"lancedb:{tmp_path / 'other'}", num_bits=12)
  with pytest.raises(InputError, match="another encoder"):
    parts_to_store(output, other)


def test_what_cannot_be_encoded(encoder, other_encoder, pictures, tmp_path):
  output = str(tmp_path / "codes")
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match="no pictures in"):
    make_plan(encoder, str(tmp_path / "empty"), output)
  with pytest.raises(InputError, match="absent is not there"):
    make_plan(encoder, str(tmp_path / "absent"), output)
  with pytest.raises(InputError, match=r"ends in \.txt"):
    (tmp_path / "listing.csv").write_text("a.png\n")
    make_plan(encoder, str(tmp_path / "listing.csv"), output)
  with pytest.raises(InputError, match="has the columns label"):
    make_plan(encoder, parquet(tmp_path / "l.parquet", {"label": [1]}), output)
  with pytest.raises(InputError, match="of a kind that cannot be read here"):
    make_plan(encoder, "gopher://x/y", output)
  with pytest.raises(InputError, match=r"has no plan\.json"):
    read_plan(output)
  plan = make_plan(encoder, str(pictures), output)
  with pytest.raises(InputError, match="codes of another encoder"):
    make_plan(other_encoder, str(pictures), output)
  with pytest.raises(InputError, match="codes of another listing"):
    make_plan(encoder, str(tmp_path / "empty"), output)
  encode_all(encoder, plan, output)
  text = (tmp_path / "codes" / "plan.json").read_text()
  changed = json.loads(text) | {"encoder": {"source": "", "digest": "other"}}
  (tmp_path / "codes" / "plan.json").write_text(json.dumps(changed))
  with pytest.raises(InputError, match="is of another encoder than"):
    list(code_batches(output))
  (tmp_path / "codes" / "plan.json").write_text(json.dumps(changed | {"encoder": {"source": ""}}))
  with pytest.raises(InputError, match=r"plan\.json: encoder is damaged: it has no field digest"):
    list(code_batches(output))
  for part in (5, ["f"], ["f", 0, 1, "", 9], ["f", "x", "y"], ["f", 0, -1], [0, 0, 1]):
    damaged = json.dumps(json.loads(text) | {"parts": [part]})
    (tmp_path / "codes" / "plan.json").write_text(damaged)
    with pytest.raises(InputError, match=r"plan\.json is damaged: .* is no part"):
      read_plan(output)
  (tmp_path / "codes" / "plan.json").write_text(text.replace('"version": 1', '"version": 9'))
  with pytest.raises(InputError, match="version 9"):
    read_plan(output)
  (tmp_path / "codes" / "plan.json").write_text(text)
  (tmp_path / "codes" / "codes" / "part-00000000.parquet").write_bytes(b"cut")
  with pytest.raises(InputError, match=r"cannot be read .*remove it"):
    list(code_batches(output))


def test_parts_cover_the_listing_once(encoder, tmp_path):
  """Any cut of any row groups gives each row once."""
  names = [f"{i}.png" for i in range(1000)]
  for groups in (1000, 300, 7):
    listing = parquet(tmp_path / "l.parquet", {"path": names}, row_group_size=groups)
    for size in (1000, 333, 256, 1):
      output = str(tmp_path / f"{groups} {size}")
      plan = make_plan(encoder, listing, output, part_size=size)
      parts = plan.parts if size > 1 else plan.parts[::97]
      found = [name for part in parts for name, _ in pictures_of(plan, part)]
      assert found == (names if size > 1 else names[::97])
  assert parts_done(output) == set()
