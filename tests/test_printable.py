import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udh_jax.printable import printable


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("a\nb\r\tc", r"a\nb\r\tc"),
    ("\x1b[31mred", r"\x1b[31mred"),
    ("byte \udcff", r"byte \udcff"),
    ("a\u2028b\u202egnp.exe", r"a\u2028b\u202egnp.exe"),
    ("図 ü \u202fPM 👩‍👩‍👧 a\\n", "図 ü \u202fPM 👩‍👩‍👧 a\\n"),
  ],
)
def test_what_acts_on_a_terminal_is_escaped_and_the_rest_stays(text, expected):
  assert printable(text) == expected


def test_some_characters_may_be_kept():
  assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"


@settings(derandomize=True, max_examples=300)
@given(st.text(st.characters()))
def test_any_text_becomes_one_line_that_can_be_encoded(text):
  shown = printable(text)
  assert len(shown.splitlines()) <= 1
  shown.encode("utf-8")
  assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
