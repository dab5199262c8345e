"""An encoder behind a server: what it takes, compiled before the first query, in few shapes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.service.batching import by_batches
from udh_jax.service.problems import Problem


class Encoded(NamedTuple):
  """What an encoder says of a query.

  Attributes:
    code: Packed. uint8 array of shape ``[bytes]``.
    outputs: Before binarisation. float32 array of shape ``[bits]``; None if only the code is
      known.
  """

  code: np.ndarray
  outputs: np.ndarray | None


def encoded(outputs: np.ndarray) -> Encoded:
  """Codes of outputs: ``pack_codes(sign(outputs))``, without a compiler.

  Args:
    outputs: Float array of shape ``[..., bits]``.
  """
  return Encoded(np.packbits(outputs >= 0, axis=-1), outputs)


class Coder:
  """Codes of pictures and of texts.

  Attributes:
    digest: Of the encoder.
    picture_size: Side of the square that it takes; 0 if it takes no pictures.
    words: Its vocabulary; empty if it takes no texts.
    method: That trained it.
  """

  def __init__(self, encoder: Encoder | PairEncoder, *, batch_sizes: Sequence[int] = (1, 4, 16)):
    """Takes an encoder.

    Args:
      encoder: From `load_encoder`.
      batch_sizes: How many pictures or texts are encoded at once; ascending, from 1.
    """
    self._outputs, self._batch_sizes = encoder.outputs, batch_sizes
    self.digest: str = encoder.digest
    self.picture_size: int = encoder.about["picture_size"]
    self._texts = encoder.text_outputs if isinstance(encoder, PairEncoder) else None
    self._words_of = encoder.words_of if isinstance(encoder, PairEncoder) else str.split
    self.words: tuple[str, ...] = tuple(encoder.about["words"]) if self._texts else ()
    self._known = frozenset(self.words)
    self.method: str = encoder.about.get("method", "")

  def prepare(self) -> None:
    """Compiles each shape that there will be."""
    for size in self._batch_sizes:
      if self.picture_size:
        self._outputs(np.zeros((size, self.picture_size, self.picture_size, 3), np.uint8))
      if self._texts and self.words:
        self._texts([[self.words[0]]] * size)

  def pictures(self, pictures: Sequence[np.ndarray]) -> list[Encoded]:
    """What the encoder says of pictures.

    Args:
      pictures: uint8 arrays of shape ``[picture_size, picture_size, 3]``.
    """
    return self._encoded(self._outputs, np.stack(pictures))

  def texts(self, texts: Sequence[Sequence[str]]) -> list[Encoded]:
    """What the encoder says of texts.

    Args:
      texts: Words of the vocabulary, as `known_words` gives them.
    """
    read = self._texts
    if read is None:
      raise Problem("The encoder of this collection takes no words.", code="no_texts")
    return self._encoded(lambda rows: read([texts[row] for row in rows]), np.arange(len(texts)))

  def _encoded(self, read: Callable[[np.ndarray], np.ndarray], rows: np.ndarray) -> list[Encoded]:
    return [encoded(outputs) for outputs in by_batches(read, rows, self._batch_sizes)]

  def known_words(self, text: str) -> tuple[list[str], list[str]]:
    """Those words of a text that the encoder knows, and the others.

    Args:
      text: See `udh_jax.encoders.pair.PairEncoder.words_of`.

    Raises:
      Problem: If it takes no texts, or knows none of the words.
    """
    if not self.words:
      raise Problem(
        "The encoder of this collection takes no words; ask by a picture or a code.",
        code="no_texts",
      )
    words = list(dict.fromkeys(self._words_of(text)))
    known = [word for word in words if word in self._known]
    if not known:
      raise Problem(
        f"No word of {text[:80]!r} is in the vocabulary of {len(self.words)} words, such as "
        f"{', '.join(self.words[:5])}.",
        status=422,
        code="unknown_words",
      )
    return known, [word for word in words if word not in self._known]
