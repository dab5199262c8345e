"""Names of files and of classes as they can be printed: on one line, with nothing that acts."""

import unicodedata

# Control characters (line breaks and the escape that drives terminals are some), halves of pairs
# (bytes of a file name that are not text), and what ends a line or a paragraph.
_ESCAPED = ("Cc", "Cs", "Zl", "Zp")
# Marks that turn the direction of the text around them.
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: object, *, keep: str = "") -> str:
  r"""Text in which what cannot be printed stands as in a Python string: ``\n``, ``\x1b``.

  Args:
    text: A name, a message or anything that becomes one by `str`.
    keep: Characters that stay as they are.
  """
  text = str(text)
  if text.isprintable():
    return text
  return "".join(character if character in keep else _escape(character) for character in text)


def _escape(character):
  if unicodedata.category(character) in _ESCAPED or character in _TURNING:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
  return character
