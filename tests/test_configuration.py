"""Configurations as data."""

import pytest
from ml_collections import ConfigDict

from udh_jax.configuration import field_names, flatten, override, select, unknown_field
from udh_jax.errors import InputError


@pytest.fixture
def config():
  return ConfigDict({"bits": 32, "rate": 0.5, "name": "x", "net": {"sides": (8, 16), "deep": True}})


def test_fields_by_dotted_names(config):
  assert flatten(config) == {
    "bits": 32, "rate": 0.5, "name": "x", "net.sides": [8, 16], "net.deep": True,
  }  # fmt: skip
  assert field_names(config) == {"bits", "rate", "name", "net", "net.sides", "net.deep"}


def test_a_selection_holds_nothing_else_and_cannot_grow(config):
  chosen = select(config, ["bits", "net.sides"])
  assert chosen.to_dict() == {"bits": 32, "net": {"sides": (8, 16)}}
  assert select(config, ["net"]).net.deep
  with pytest.raises(AttributeError):
    _ = chosen.rate
  with pytest.raises(AttributeError):
    chosen.rate = 1
  chosen.bits = 8
  assert config.bits == 32


def test_values_are_set_in_a_copy(config):
  changed = override(config, {"bits": 64, "rate": 1, "net.deep": False})
  assert (changed.bits, changed.rate, changed.net.deep) == (64, 1.0, False)
  assert config.bits == 32 and config.net.deep


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"bitz": 8}, "no field bitz; did you mean bits"),
    ({"sides": 8}, r"no field sides; did you mean net\.sides"),
    ({"weights": 8}, "no field weights; the sections are bits, name, net, rate"),
    ({"bits": "many"}, "bits is 32, of type int; 'many' of type str was given; give a value of"),
  ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, values, message):
  with pytest.raises(InputError, match=message) as caught:
    override(config, values)
  assert "\n" not in str(caught.value)


def test_a_field_is_looked_for_in_other_sections():
  assert unknown_field("student.side", ["bits", "net.side"]).endswith("did you mean net.side?")
