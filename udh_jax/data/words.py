"""Words of a text, in any script, and the vocabulary of many texts."""

import collections
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.errors import require
from udh_jax.extras import require_extra

ICU = "icu"  # the name of this way of cutting, as encoders store it


def cut(text: str) -> list[str]:
  """The words of a text, in its order, repeated ones too.

  Boundaries are those of Unicode (UAX 29), and in scripts without blanks, such as Chinese, Japanese
  and Thai, those of ICU's dictionaries. Words are brought to one form (NFKC) and case-folded; what
  has neither letter nor digit is no word.

  Args:
    text: In any language. Half a surrogate pair, as a text cut within an emoji ends in, is cut as
      any mark.

  Raises:
    InputError: If ICU is not installed (the extra ``pairs``).

  References:
    Unicode Standard Annex 29, Text Segmentation; ICU, word break iterator of the root locale.
  """
  breaker = require_extra("icu4py.breakers", extra="pairs").WordBreaker
  text = text.encode("utf-8", "replace").decode()  # ICU refuses halves of surrogate pairs
  text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
  return [word for word in breaker(text, "root") if any(map(str.isalnum, word))]


class Vocabulary(NamedTuple):
  """Words that stand for columns, and what was left out to get them.

  Attributes:
    words: The most frequent first, equal ones by code point. t strings.
    found: How many different words there were.
    covered: Share of all places of words in the texts that these words have, in [0, 1].
  """

  words: list[str]
  found: int
  covered: float


def make_vocabulary(
  texts: Sequence[Sequence[str]], *, min_count: int, max_words: int
) -> Vocabulary:
  """The words that enough texts have.

  Args:
    texts: Words of each text.
    min_count: In how many texts a word has to be.
    max_words: How many words there are at most: the most frequent ones.

  Returns:
    The vocabulary.

  Raises:
    InputError: If no word is in ``min_count`` texts.
  """
  counts = collections.Counter(word for text in texts for word in set(text))
  order = sorted(counts, key=lambda word: (-counts[word], word))
  words = [word for word in order if counts[word] >= min_count][:max_words]
  require(
    len(words) > 0,
    lambda: (
      f"No word is in {min_count} of the {len(texts)} training texts (the most frequent one is in "
      f"{max(counts.values(), default=0)}); lower min_word_count."
    ),
  )
  kept = set(words)
  places = sum(map(len, texts))
  return Vocabulary(
    words, len(counts), sum(word in kept for text in texts for word in text) / max(places, 1)
  )


def indicators(texts: Sequence[Sequence[str]], words: Sequence[str]) -> np.ndarray:
  """Which of some words each text has.

  Args:
    texts: Words of each of n texts.
    words: The columns, t strings.

  Returns:
    Bool array of shape ``[n, t]``.
  """
  column = {word: number for number, word in enumerate(words)}
  present = np.zeros((len(texts), len(words)), bool)
  for row, text in enumerate(texts):
    present[row, [column[word] for word in text if word in column]] = True
  return present
