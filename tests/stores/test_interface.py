"""Both stores by the one interface: what they find is what the index finds."""

import itertools

import numpy as np
import pytest

import udh_jax
from udh_jax.coding import pack_codes
from udh_jax.commands import search
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex
from udh_jax.stores import (
  Condition,
  Rows,
  StoreError,
  create_store,
  index_to_store,
  open_store,
  parse_where,
  require_same_encoder,
  store_to_index,
)

ABOUT = {"encoder": {"digest": "0123456789abcdef", "source": "runs/\udcff/ä"}, "folder": "x"}
COLUMNS = {"label": "text", "Year": "integer", "score": "real", "seen": "boolean"}
NAMES = [
  "plain.jpg", "a b.jpg", "it's.jpg", 'say "x".jpg', "100%s.jpg", "ä/ü/漢字🙂.jpg", "back\\slash",
  "tab\tline\nend", "$1", "{}", "; DROP TABLE codes; --", " ", "`", "\u00e9", "e\u0301", "x" * 2000,
]  # fmt: skip
_tables = itertools.count()


@pytest.fixture(params=["postgresql", "lancedb"])
def location(request, tmp_path):
  """Where a store can be made."""
  if request.param == "lancedb":
    pytest.importorskip("lancedb")
    return f"lancedb:{tmp_path / 'lance'}"
  return request.getfixturevalue("postgresql")


@pytest.fixture
def make(location):
  """Makes stores in tables of their own, and closes them."""
  made = []

  def run(num_bits=16, columns=COLUMNS, about=ABOUT, **options):
    options.setdefault("table", f"codes_{next(_tables)}")
    made.append(create_store(location, num_bits=num_bits, about=about, columns=columns, **options))
    return made[-1]

  yield run
  for store in made:
    store.close()


def few_codes(rng, n, num_bits=16):
  """Codes of which many are equally far from any other."""
  return np.asarray(pack_codes(rng.choice([-1, 1], (n, num_bits), p=[0.25, 0.75])))


def names_of(n):
  """Names whose own order is not the order of their places."""
  return [f"{(7 * i) % n:04d}.jpg" for i in range(n)]


def neighbours_of(queries, codes, k=None, radius=None):
  """Distances and rows of the k nearest, or of all within a radius; ties by row."""
  for query in queries:
    distances = np.unpackbits(query ^ codes, axis=1).sum(axis=1)
    rows = np.argsort(distances, kind="stable")[:k]
    rows = rows if radius is None else rows[distances[rows] <= radius]
    yield distances[rows], rows


def same(found, names, expected):
  for one, (distances, rows) in zip(found, expected, strict=True):
    np.testing.assert_array_equal(one.distances, distances)
    assert one.distances.dtype == np.int32
    assert one.names == [names[i] for i in rows]


@pytest.mark.parametrize("num_bits", [1, 12, 16, 64])
def test_exact_answers_are_the_index_s(rng, make, num_bits):
  codes, queries, names = few_codes(rng, 500, num_bits), few_codes(rng, 4, num_bits), names_of(500)
  index = HammingIndex(codes, names, num_bits=num_bits, about=ABOUT)
  store = make(num_bits)
  assert index_to_store(index, store) == 500
  for k in (1, 10, 300):
    same(store.nearest(queries, k), names, neighbours_of(queries, codes, k))
  assert len(store.nearest(queries[:1], 501)[0].names) == 500
  for radius in (0, num_bits // 4, num_bits):
    same(store.within(queries, radius), names, neighbours_of(queries, codes, radius=radius))
  assert store.nearest(queries[:0], 3) == []
  if num_bits == 16:
    by_jax = udh_jax.search(queries, codes, 10)
    same(store.nearest(queries, 10), names, zip(*by_jax, strict=True))


def test_from_index_to_store_to_index(rng, make):
  index = HammingIndex(few_codes(rng, 120, 12), names_of(120), num_bits=12, about=ABOUT)
  store = make(12)
  index_to_store(index, store)
  again = store_to_index(store)
  np.testing.assert_array_equal(again.codes, index.codes)
  assert list(again.names) == list(index.names)
  assert (again.num_bits, again.about) == (12, ABOUT)
  assert [name for part in store.names(50) for name in part] == list(index.names)
  assert [len(rows.names) for rows in store.rows(50)] == [50, 50, 20]


def test_empty(make):
  store = make()
  assert store.count() == 0
  assert store.nearest(np.zeros((2, 2), np.uint8), 3)[1].names == []
  assert store.within(np.zeros((1, 2), np.uint8), 16)[0].distances.shape == (0,)
  assert store.upsert([], np.zeros((0, 2), np.uint8)) == 0
  assert store.load([]) == 0
  assert store.get(["a"]).codes.shape == (0, 2)
  assert list(store.rows()) == [] and store.delete(["a"]) == 0
  assert len(store_to_index(store)) == 0


def test_a_text_is_one_name(rng, make):
  store = make()
  names = ["1", "2", "12", "21"]
  store.upsert(names, few_codes(rng, 4))
  assert store.get("12").names == ["12"]
  assert store.delete("12") == 1
  assert [name for part in store.names() for name in part] == ["1", "2", "21"]
  assert store.upsert("21", few_codes(rng, 1)) == 1 and store.count() == 3


def test_a_text_stands_for_no_list(rng, make):
  store = make()
  with pytest.raises(InputError, match="Column 'label' is the text 'abc'; give a list"):
    store.upsert(["a", "b", "c"], few_codes(rng, 3), {"label": "abc"})
  with pytest.raises(InputError, match="where is the text 'score>=2'; give conditions"):
    store.nearest(few_codes(rng, 1), 1, where="score>=2")


@pytest.mark.parametrize("wrong", [True, 2.5, "3", None])
def test_numbers_of_neighbours_are_whole(rng, make, wrong):
  store, codes = make(), few_codes(rng, 3)
  for ask in (
    lambda: store.nearest(codes, wrong),
    lambda: store.nearest(codes, 1, effort=wrong),
    lambda: store.within(codes, wrong),
  ):
    with pytest.raises(InputError, match="expected a whole number"):
      ask()


def test_names_of_any_characters(rng, make):
  store, codes = make(), few_codes(rng, len(NAMES))
  metadata = {"label": NAMES, "score": np.linspace(0, 1, len(NAMES))}
  store.upsert(NAMES, codes, metadata)
  rows = store.get([*reversed(NAMES), "missing", "plain.jpg"])
  assert rows.names == NAMES[::-1]
  np.testing.assert_array_equal(rows.codes, codes[::-1])
  assert rows.metadata["label"] == NAMES[::-1]
  assert rows.metadata["score"] == metadata["score"][::-1].tolist()
  for name in NAMES:
    assert store.count({"label": name}) == 1
  assert store.delete(NAMES[:7]) == 7
  assert [rows.names for rows in store.rows()] == [NAMES[7:]]


@pytest.mark.parametrize(
  ("name", "problem"),
  [
    ("a\0b", "NUL"),
    ("a\udcffb", "not UTF-8"),
    ("", "0 bytes"),
    ("ä" * 1001, "2002 bytes"),
    (7, "not a string"),
  ],
)
def test_names_that_cannot_be_held(make, name, problem):
  store = make()
  with pytest.raises(InputError, match=problem):
    store.upsert(["a", name], np.zeros((2, 2), np.uint8))
  assert store.count() == 0
  assert store.delete([name]) == 0
  assert store.get([name]).names == []


def test_a_written_code_keeps_its_place(rng, make):
  store = make()
  codes = np.zeros((4, 2), np.uint8)
  store.upsert(["d", "c", "b", "a"], codes, {"Year": [1, 2, 3, 4]})
  assert store.upsert(["b", "e", "d"], codes[:3], {"Year": [30, 50, 10]}) == 3
  assert store.nearest(codes[:1], 9)[0].names == ["d", "c", "b", "a", "e"]
  assert store.get(["d", "b", "c"]).metadata["Year"] == [10, 30, 2]
  store.upsert(["b"], np.full((1, 2), 255, np.uint8))
  assert store.nearest(codes[:1], 9)[0].names[-1] == "b"
  assert store.count() == 5


def test_a_write_leaves_the_columns_that_it_lacks(rng, make):
  store, codes = make(), few_codes(rng, 4)
  store.upsert(
    ["a", "b"], codes[:2], {"label": ["cat", "dog"], "Year": [1, 2], "seen": [True, None]}
  )
  store.upsert(["b"], codes[2:3])
  assert store.get(["b"]).codes.tolist() == codes[2:3].tolist()
  batches = [
    Rows(["new", "a"], codes[2:], {"Year": [3, 4]}),
    Rows(["b", "newer"], codes[:2], {"label": [None, "fox"], "score": [0.5, 0.25]}),
  ]
  assert store.load(iter(batches)) == 4
  assert store.get(["a", "b", "new", "newer"]).metadata == {
    "label": ["cat", None, None, "fox"],
    "Year": [4, 2, 3, None],
    "score": [None, 0.5, None, 0.25],
    "seen": [True, None, None, None],
  }
  assert [rows.names for rows in store.rows()] == [["a", "b", "new", "newer"]]


def test_an_index_leaves_the_columns_of_a_store(rng, make):
  index = HammingIndex(few_codes(rng, 3), ["a", "b", "c"], about=ABOUT)
  store = make()
  store.upsert(["b"], index.codes[:1], {"label": ["cat"]})
  assert index_to_store(index, store) == 3
  assert store.get(["a", "b", "c"]).metadata["label"] == [None, "cat", None]


def test_a_name_twice_in_a_load(make):
  store = make(8, {})
  store.upsert(["b"], np.array([[9]], np.uint8))
  batches = [Rows(["a", "b"], np.array([[1], [2]], np.uint8), {})]
  batches.append(Rows(["b", "c"], np.array([[3], [4]], np.uint8), {}))
  with pytest.raises(InputError, match="1 names are given twice at once"):
    store.load(iter(batches))
  with pytest.raises(InputError, match="'a' is given twice at once"):
    store.upsert(["a", "b", "a"], np.zeros((3, 1), np.uint8))
  assert [rows.names for rows in store.rows()] == [["b"]]
  assert store.get(["b"]).codes.tolist() == [[9]]


def test_a_load_that_fails_leaves_nothing(make):
  store = make(8, {})
  store.upsert(["kept"], np.array([[7]], np.uint8))

  def batches():
    yield Rows(["a", "kept"], np.array([[1], [2]], np.uint8), {})
    raise KeyError("the source failed")

  with pytest.raises(KeyError, match="the source failed"):
    store.load(batches())
  assert [rows.names for rows in store.rows()] == [["kept"]]
  assert store.get(["kept"]).codes.tolist() == [[7]]
  assert store.upsert(["a"], np.array([[1]], np.uint8)) == 1


@pytest.mark.parametrize("approximate", [False, True])
def test_filters(rng, make, approximate):
  n = 300
  metadata = {
    "label": [("cat", "dog", "Äpfel", None)[i % 4] for i in range(n)],
    "Year": [2000 + i % 20 for i in range(n)],
    "score": [i / n for i in range(n)],
    "seen": [(True, False, None)[i % 3] for i in range(n)],
  }
  codes, names, queries = few_codes(rng, n), names_of(n), few_codes(rng, 2)
  store = make()
  store.upsert(names, codes, metadata)
  if approximate:
    store.build_index()
  compare = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a is not None and a < b,
    "<=": lambda a, b: a is not None and a <= b,
    ">": lambda a, b: a is not None and a > b,
    ">=": lambda a, b: a is not None and a >= b,
  }
  cases = [
    [("label", "=", "cat")],
    [("label", "!=", "cat")],
    [("label", "=", None)],
    [("label", "!=", None)],
    [("label", ">", "cat")],
    [("Year", ">=", 2005), ("Year", "<", 2007), ("seen", "=", True)],
    [("seen", "!=", True), ("score", "<=", 0.25)],
    [("Year", "=", 1999)],
    [("score", ">", 0.5), ("label", "=", "Äpfel")],
  ]
  for case in cases:
    rows = [i for i in range(n) if all(compare[o](metadata[c][i], v) for c, o, v in case)]
    part, kept = codes[rows], [names[i] for i in rows]
    where = [Condition(*condition) for condition in case]
    assert store.count(where) == len(rows)
    found = store.nearest(queries, 12, where=where, approximate=approximate)
    expected = list(neighbours_of(queries, part, 12))
    if not approximate:
      same(found, kept, expected)
      same(store.within(queries, 5, where=where), kept, neighbours_of(queries, part, radius=5))
      continue
    for one, (distances, _) in zip(found, expected, strict=True):
      np.testing.assert_array_equal(one.distances, distances)
      assert set(one.names) <= set(kept)  # which of the equally far is left to the candidates
  assert store.count({"label": "cat", "Year": ("<", 2010)}) == store.count(
    parse_where(["label=cat", "Year<2010"], COLUMNS)
  )


def test_approximate_search_counts_again(rng, make):
  codes = np.asarray(pack_codes(rng.choice([-1, 1], (2000, 64))))
  index = HammingIndex(codes, names_of(2000), about=ABOUT)
  store = make(64, {})
  index_to_store(index, store)
  assert not store.has_index()
  with pytest.raises(InputError, match="no approximate index"):
    store.nearest(codes[:1], 5, approximate=True)
  store.build_index()
  assert store.has_index()
  queries = few_codes(rng, 20, 64)
  truth = index.search(queries, 10)
  found = store.nearest(queries, 10, approximate=True, effort=400)
  recall = [np.mean(a.distances <= d[-1]) for a, d in zip(found, truth.distances, strict=True)]
  assert np.mean(recall) > 0.9
  place = {name: i for i, name in enumerate(index.names)}
  for query, one in zip(queries, found, strict=True):
    rows = [place[name] for name in one.names]
    np.testing.assert_array_equal(one.distances, np.bitwise_count(codes[rows] ^ query).sum(axis=1))
    assert list(zip(one.distances, rows, strict=True)) == sorted(
      zip(one.distances, rows, strict=True)
    )
  store.upsert(["new"], queries[:1])
  assert store.nearest(queries[:1], 1, approximate=True)[0].names == ["new"]
  store.delete(["new"])
  assert store.nearest(queries[:1], 1, approximate=True)[0].names != ["new"]
  same(
    store.nearest(queries, 10), index.names, zip(*truth, strict=True)
  )  # exact though there is an index
  store.build_index()
  assert store.nearest(codes[:1], 1, approximate=True)[0].distances.tolist() == [0]
  with pytest.raises(InputError, match="effort is 4, expected k = 5"):
    store.nearest(queries, 5, approximate=True, effort=4)


def test_what_many_writings_leave_is_put_in_order(rng, make):
  codes, names = few_codes(rng, 300, 64), names_of(300)
  store = make(64, {"n": "integer"})
  store.optimize()  # empty
  store.upsert(names[:200], codes[:200], {"n": list(range(200))})
  store.build_index()
  for i in range(200, 300, 20):
    part = slice(i, i + 20)
    store.upsert(names[part], codes[part], {"n": list(range(i, i + 20))})
  for _ in range(2):
    store.optimize()
    assert store.has_index() and [rows.names for rows in store.rows()] == [names]
    same(store.nearest(codes[:2], 9), names, neighbours_of(codes[:2], codes, 9))
    (found,) = store.nearest(codes[299:], 1, approximate=True)
    assert found.distances.tolist() == [0]
    assert store.get(names[::-1]).metadata["n"] == list(range(300))[::-1]
    store.upsert(names[:1], codes[:1])  # by its name it is found again
    assert store.count() == 300
  assert store.delete(names[:150]) == 150 and store.get(names).names == names[150:]


def test_a_mix_is_refused(make, location):
  table = "mixed"
  store = make(table=table)
  other = {"encoder": {"digest": "fedcba9876543210", "source": ""}}
  with pytest.raises(InputError, match=r"another encoder \(digest 0123456789ab"):
    make(table=table, about=other)
  with pytest.raises(InputError, match="holds codes of 16 bits, 32 were asked for"):
    make(32, table=table)
  with pytest.raises(InputError, match="were asked for"):
    make(table=table, columns={"more": "text"})
  assert make(table=table, columns={}).columns == COLUMNS
  for call in (store.nearest, store.within):
    with pytest.raises(InputError, match=r"codes of 16 bits \(2 bytes\), 4 bytes were given"):
      call(np.zeros((1, 4), np.uint8), 1)
  with pytest.raises(InputError, match="16 bits"):
    store.upsert(["a"], np.zeros((1, 1), np.uint8))
  with pytest.raises(InputError, match="another encoder"):
    index_to_store(HammingIndex(np.zeros((1, 2), np.uint8), ["a"], about=other), store)
  with pytest.raises(InputError, match="has 8 bits"):
    index_to_store(HammingIndex(np.zeros((1, 1), np.uint8), ["a"], about=ABOUT), store)
  require_same_encoder(store, ABOUT["encoder"]["digest"])
  with pytest.raises(InputError, match="another encoder"):
    require_same_encoder(store, "fedc")
  opened = open_store(location, table=table)
  assert (opened.num_bits, opened.about, opened.columns) == (16, ABOUT, COLUMNS)
  opened.close()
  with pytest.raises(StoreError, match=r"no table of codes 'absent'.*--store"):
    open_store(location, table="absent")


def test_what_is_known_of_a_store_can_change(make, location):
  store = make(table="moved")
  store.upsert(["a"], np.zeros((1, 2), np.uint8))
  about = {"encoder": ABOUT["encoder"] | {"source": "else\udcffwhere"}, "folder": "y", "more": [1]}
  store.describe(about)
  store.upsert(["b"], np.zeros((1, 2), np.uint8))
  assert store.about == about
  with open_store(location, table="moved") as opened:
    assert opened.about == about and opened.columns == COLUMNS and opened.count() == 2
    with pytest.raises(InputError, match="another encoder"):
      opened.describe({"encoder": {"digest": "fedc", "source": ""}})
  assert make(table="moved").about == about  # whatever a later caller has at hand


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    (Rows(["a"], np.zeros((2, 2), np.uint8), {}), "2 codes and 1 names"),
    (Rows(["a", "a"], np.zeros((2, 2), np.uint8), {}), "'a' is given twice"),
    (Rows(["a"], np.zeros((1, 2), np.int32), {}), "uint8"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"colour": ["x"]}), "no column colour"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"label": []}), "0 values for 1 names"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"label": [3]}), "holds text values; 3 is not one"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"Year": [True]}), "integer values; True is"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"Year": [2**63]}), "integer values"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"score": [float("nan")]}), "real values; nan"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"label": ["x\0"]}), "NUL"),
    (Rows(["a"], np.zeros((1, 2), np.uint8), {"score": [10**400]}), "real values; inf"),
    (Rows(["a"], np.full((1, 2), 255, np.uint8), {}), "Padding bits after bit 12"),
  ],
)
def test_rows_that_do_not_fit(make, rows, message):
  store = make(12)
  with pytest.raises(InputError, match=message):
    store.load([rows])
  assert store.count() == 0


@pytest.mark.parametrize("name", ["1x", "a b", "name", "Code", "", "a" * 49, "x;y", "ä"])
def test_columns_that_cannot_be(make, name):
  with pytest.raises(InputError, match="cannot be used"):
    make(columns={name: "text"})


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    (["label"], "not a condition"),
    (["colour=x"], "no column 'colour'"),
    (["Year=many"], "integer values; 'many' is not one"),
    (["seen=maybe"], "boolean"),
    (["Year>"], "None cannot be compared by >"),
  ],
)
def test_conditions_that_cannot_be(texts, message):
  with pytest.raises(InputError, match=message):
    parse_where(texts, COLUMNS)


def test_conditions_as_the_command_line_has_them():
  texts = ["label=a=b", "Year>= 2020", "score<0.5", "seen=TRUE", "label!=", "label!=x"]
  texts += ["label==cat", "Year == 7", "label=="]
  assert parse_where(texts, COLUMNS) == [
    ("label", "=", "a=b"),
    ("Year", ">=", 2020),
    ("score", "<", 0.5),
    ("seen", "=", True),
    ("label", "!=", None),
    ("label", "!=", "x"),
    ("label", "=", "cat"),
    ("Year", "=", 7),
    ("label", "=", None),
  ]


def test_queries_whose_padding_is_set_are_refused(make):
  store = make(12)
  store.upsert(["a"], np.zeros((1, 2), np.uint8))
  for ask in (lambda codes: store.nearest(codes, 1), lambda codes: store.within(codes, 0)):
    with pytest.raises(InputError, match="Padding bits after bit 12"):
      ask(np.array([[0, 1]], np.uint8))


def test_any_number_of_neighbours_may_be_asked_for(rng, make):
  store = make()
  store.upsert(names_of(30), few_codes(rng, 30))
  (found,) = store.nearest(few_codes(rng, 1), 2**40)
  assert sorted(found.names) == sorted(names_of(30))


def test_the_smallest_whole_number_is_a_condition_too(make):
  store = make()
  values = [-(2**63), 1 - 2**63, 0]
  store.upsert(list("abc"), np.zeros((3, 2), np.uint8), {"Year": values})
  for operator, expected in (("=", 1), (">=", 3), ("<", 0), ("!=", 2), (">", 2)):
    assert store.count({"Year": (operator, -(2**63))}) == expected


def test_a_search_says_that_nothing_matches(rng, location, failing):
  store = create_store(location, num_bits=16, about=ABOUT, columns=COLUMNS, table="filtered")
  store.upsert(["a"], few_codes(rng, 1), {"Year": [2020]})
  store.close()
  asked = ["--store", location, "--table", "filtered", "--image", "x.jpg", "--where", "Year>2020"]
  assert "has no item that matches --where Year>2020." in failing(search.main, asked)
  line = failing(search.main, [*asked[:-1], "Year<>2020"])
  assert "'Year<>2020' is not a condition; give a column, one of = != < <= > >= and a value" in line
