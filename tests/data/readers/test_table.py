import json

import pytest

from udh_jax import extras
from udh_jax.data.readers.table import read_table
from udh_jax.errors import InputError


def test_every_kind_of_file_gives_the_same_columns(tmp_path):
  rows = [("a.jpg", 'He said "x, y"'), ("b.jpg", ""), ("c d.jpg", "é 红")]
  csv = "\ufeffimage,other,text\r\n" + "".join(
    f'{name},1,"{text.replace(chr(34), chr(34) * 2)}"\r\n' for name, text in rows
  )
  (tmp_path / "t.csv").write_bytes(csv.encode() + b"\r\n")
  (tmp_path / "t.tsv").write_text("text\timage\n" + "".join(f"{t}\t{n}\n" for n, t in rows))
  lines = [json.dumps({"image": n, "text": t or None}) for n, t in rows]
  (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n\n")
  arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  names, texts = zip(*rows, strict=True)
  parquet.write_table(arrow.table({"text": texts, "image": names}), tmp_path / "t.parquet")
  for ending in ("csv", "tsv", "jsonl", "parquet"):
    found = read_table(tmp_path / f"t.{ending}", ["image", "text"])
    assert found == {"image": list(names), "text": list(texts)}, ending


def test_lists_stay_lists_and_numbers_become_text(tmp_path):
  (tmp_path / "t.ndjson").write_text('{"a": ["x", 1, null], "b": 3}\n{"a": "y"}\n')
  assert read_table(tmp_path / "t.ndjson", ["a", "b"]) == {"a": [["x", "1"], "y"], "b": ["3", ""]}


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("t.csv", b"a,b\n1,2\n3\n", r"t\.csv line 3 has 1 cells, but the first line names 2"),
    ("t.csv", b'a,b\n1,"2\n', r"t\.csv line 2 is no line of a table"),
    ("t.csv", b"a,c\n1,2\n", r"no column 'b'; it has 'a', 'c'"),
    ("t.csv", b"", r"no column 'a', 'b'"),
    ("t.tsv", b"a\tb\n\xff\t1\n", r"t\.tsv is not UTF-8"),
    ("t.jsonl", b'{"a": 1, "b": 2}\n[1]\n', r"line 2 is no JSON object"),
    ("t.jsonl", b'{"a": 1}\n{', r"line 2 is no JSON \("),
    ("t.jsonl", b'{"a": 1}\n', r"no column 'b'; it has 'a'"),
    ("t.parquet", b"PAR1", r"no Parquet file"),
    ("t.xlsx", b"", r"ends in '\.xlsx'; tables are read from \.csv"),
  ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=message):
    read_table(tmp_path / name, ["a", "b"])


def test_missing_numbers_of_parquet_are_missing(tmp_path):
  arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
  columns = {"a": [1.0, float("nan"), 2.5, None], "b": [[1.0, float("nan")], [], [2.5], None]}
  parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
  found = read_table(tmp_path / "t.parquet", ["a", "b"])
  assert found == {"a": ["1", "", "2.5", ""], "b": [["1"], [], ["2.5"], ""]}


def test_no_file_is_an_input_error(tmp_path):
  with pytest.raises(InputError, match="is not a file"):
    read_table(tmp_path / "t.csv", ["a"])


def test_a_missing_pyarrow_names_the_extra(tmp_path, monkeypatch):
  (tmp_path / "t.parquet").write_bytes(b"PAR1")

  def missing(name):
    raise ModuleNotFoundError(name=name)

  monkeypatch.setattr(extras.importlib, "import_module", missing)
  with pytest.raises(InputError, match=r"pyarrow.parquet is not installed; .*udh_jax\[parquet\]"):
    read_table(tmp_path / "t.parquet", ["a"])
