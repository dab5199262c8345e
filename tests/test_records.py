import json

import pytest

from udh_jax.errors import InputError
from udh_jax.records import (
  LIST,
  TEXT,
  TEXTS,
  number,
  numbers,
  one_of,
  require_fields,
  whole,
)

KINDS = {
  "name": TEXT,
  "words": TEXTS,
  "list": LIST,
  "type": one_of("a", "b"),
  "bits": whole(1, 64),
  "share": number(0, 1),
  "rate": number(0),
  "mean": numbers(3),
  "std": numbers(3, positive=True),
}
GOOD = {
  "name": "",
  "words": ["x"],
  "list": [],
  "type": "b",
  "bits": 64,
  "share": 1,
  "rate": 3.5,
  "mean": [0, -1, 0.5],
  "std": [1, 2, 3.0],
}


def test_a_record_with_all_its_fields_is_handed_on():
  assert require_fields("a.json", GOOD | {"more": 3}, KINDS) == GOOD | {"more": 3}


@pytest.mark.parametrize("value", [[], None, 3, "text", [GOOD]])
def test_another_value_is_no_record(value):
  with pytest.raises(InputError, match=r"a\.json is damaged: it holds .*, expected an object"):
    require_fields("a.json", value, KINDS)


@pytest.mark.parametrize("field", KINDS)
def test_a_missing_field_is_named(field):
  record = {name: value for name, value in GOOD.items() if name != field}
  with pytest.raises(InputError, match=rf"a\.json is damaged: it has no field {field};"):
    require_fields("a.json", record, KINDS)


WRONG = {
  "name": [3, None],
  "words": ["x", [3], [["x"]]],
  "list": ["x", {}],
  "type": ["c", "", 3, ["a"], {"a": 1}],
  "bits": [0, 65, -1, 1.0, True, "8", 1e400, 10**400],
  "share": [1.5, -0.1, float("nan"), True, "1"],
  "rate": [float("inf"), float("nan"), -1, 10**400],
  "mean": [[0, 0], [0, 0, "1"], "0,0,0", [0, 0, float("nan")], [0, 0, True], 0.5],
  "std": [[1, 1, 0], [1, 1, -1], [1, 1, float("inf")], [1, 1, 10**400]],
}


@pytest.mark.parametrize(
  ("field", "value"), [(field, value) for field, values in WRONG.items() for value in values]
)
def test_a_value_of_another_kind_is_shown_with_what_is_expected(field, value):
  with pytest.raises(InputError, match=f"its field {field} is .*, expected ") as error:
    require_fields("a.json", GOOD | {field: value}, KINDS)
  assert len(str(error.value)) < 250


def test_a_long_value_is_shown_in_part():
  with pytest.raises(InputError) as error:
    require_fields("a.json", {"bits": "x" * 10_000}, {"bits": KINDS["bits"]})
  assert len(str(error.value)) < 250
  assert json.dumps("x" * 10_000) not in str(error.value)
