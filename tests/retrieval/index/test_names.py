"""Names in two arrays behave as a list of strings does."""

import os

import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.retrieval.index import names as names_module
from udh_jax.retrieval.index.names import LazyNames, Names

TEXTS = [
  "",
  "a",
  "ä/ö.jpg",
  "",
  "a",
  os.fsdecode(b"broken \xff"),
  "x" * 300,
  "line\nbreak\0nul",
  "b",
]


@pytest.fixture(params=[1, 7, 1 << 20])
def chunk(request, monkeypatch):
  """Bytes of text worked on at once: below one name, between two, and above all."""
  monkeypatch.setattr(names_module, "_CHUNK", request.param)


@pytest.mark.usefixtures("chunk")
def test_it_is_a_sequence_of_strings():
  names = Names.of(TEXTS)
  assert list(names) == TEXTS
  assert [names[i] for i in range(-len(TEXTS), len(TEXTS))] == TEXTS + TEXTS
  assert names == TEXTS
  assert names == Names.of(TEXTS)
  assert names != TEXTS[::-1]
  assert names != [*TEXTS[:-1], "c"]
  for key in (slice(2, 7), slice(None, None, -1), slice(5, 2), slice(0, 0), slice(1, 9, 3)):
    assert list(names[key]) == TEXTS[key]
    assert list(names[2:8][key]) == TEXTS[2:8][key]
  with pytest.raises(IndexError):
    names[len(TEXTS)]
  assert "a" in names
  assert "c" not in names
  assert names.index("a") == 1
  assert names.index("a", 2) == 4
  assert list(Names.joined([names, Names.of([]), names[3:]])) == TEXTS + TEXTS[3:]
  assert list(Names.of([])) == []


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_taken_in_any_order(seed):
  rng = np.random.default_rng(seed)
  texts = [chr(97 + i % 26) * rng.integers(0, 5) for i in range(200)]
  for rows in (
    rng.integers(0, 200, 300),  # scattered
    np.delete(np.arange(200), [3, 50, 51]),  # in a few runs
    np.zeros(0, np.int64),
  ):
    assert list(Names.of(texts).take(rows)) == [texts[i] for i in rows]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("rows", [None, [1, 2, 5, 9, 17], []])
def test_chosen_rows_of_several(rows):
  several = [Names.of(TEXTS), Names.of([]), Names.of(TEXTS[::-1])]
  both = TEXTS + TEXTS[::-1]
  expected = both if rows is None else [both[i] for i in rows]
  names = LazyNames(several, None if rows is None else np.array(rows, np.int64))
  assert len(names) == len(expected)
  assert [names[i] for i in range(-len(names), len(names))] == expected + expected
  assert "_joined" not in names.__dict__
  assert list(names) == expected
  assert list(names[1:4]) == expected[1:4]
  assert names.find(expected).tolist() == [expected.index(name) for name in expected]


@pytest.mark.usefixtures("chunk")
def test_the_first_item_of_a_name_is_found():
  names = Names.of(TEXTS)
  assert names.find([*TEXTS, "c", "xx"]).tolist() == [0, 1, 2, 0, 1, 5, 6, 7, 8, -1, -1]
  assert names.find([]).tolist() == []
  assert Names.of([]).find(["a"]).tolist() == [-1]


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize(
  "part", ["", "a", "A", "xx", "BREAK", "Ö", "ö", "k\0N", ".jp", "zz", "x" * 301]
)
def test_names_that_contain_a_text_are_found(part):
  def lower(text):  # of ASCII alone
    return "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)

  for texts in (TEXTS, [text.upper() for text in TEXTS[:5]], []):
    expected = [row for row, text in enumerate(texts) if lower(part) in lower(text)]
    assert Names.of(texts).containing(part).tolist() == expected
  several = Names.joined([Names.of(["ab", "ba"]), Names.of(["b", "a", ""])])
  assert several.containing("bb").tolist() == []  # across two names
  assert several.containing("\ud800").tolist() == []


def test_what_cannot_be_a_name_is_not_there():
  names = Names.of(["a", "b"])
  assert "\ud800" not in names and "a" in names
  assert names.find(["b", "\ud800", "a"]).tolist() == [1, -1, 0]
  assert names.find(["\ud800"]).tolist() == [-1]
  with pytest.raises(ValueError):
    names.index("\ud800")


@pytest.mark.parametrize(
  "key", [np.array([2, 0]), [2, 0], np.array([True, False, True]), np.array([-1, 0, 0]), []]
)
def test_several_places_give_names(key):
  names = ["a", "b", "c"]
  expected = np.array(names)[np.asarray(key, None if len(key) else int)].tolist()
  for many in (Names.of(names), LazyNames([Names.of(names[:2]), Names.of(names[2:])], None)):
    assert list(many[key]) == expected


def test_names_of_one_hash_are_told_apart(monkeypatch):
  monkeypatch.setattr(Names, "_hashes", lambda self: np.zeros(len(self), np.uint64))
  assert Names.of(TEXTS).find(["b", "a", "c", ""]).tolist() == [8, 1, -1, 0]


def test_hashes_of_different_names_differ():
  texts = [f"{a}/{b}.jpg" for a in range(100) for b in range(100)]
  assert len(np.unique(Names.of(texts)._hashes())) == len(texts)


def test_memory_is_bytes_and_offsets():
  names = Names.of(TEXTS)
  size = sum(len(os.fsencode(text)) for text in TEXTS)
  assert names.text.nbytes + names.ends.nbytes == size + 8 * len(TEXTS)


@pytest.mark.parametrize(
  ("texts", "words"), [(["a", 1], "name 1 is not"), (["\ud800"], r"name '\\ud800' is not text")]
)
def test_what_is_no_text_is_refused(texts, words):
  with pytest.raises(InputError, match=words):
    Names.of(texts)
