"""scikit-learn's handwritten digits: real images that need no download."""

from typing import Any

import numpy as np

from udh_jax.data.types import Reader, Source
from udh_jax.extras import require_extra


def read_digits() -> Source:
  """Reads the 1,797 digits of 8 x 8 pixels, grey repeated to three channels.

  Returns:
    The source; values 0 to 16 are spread over 0 to 255.
  """
  digits = require_extra("sklearn.datasets", extra="train").load_digits()
  grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # [1797, 8, 8]
  images = np.repeat(grey[..., None], 3, axis=-1)
  return Source(
    images=images,
    image_shape=images.shape[1:],
    names=[f"digit_{row}" for row in range(len(images))],
    labels=digits.target.astype(np.int32),
    class_names=[str(name) for name in digits.target_names],
  )


def _read(config: Any, progress: Any) -> Source:
  del config, progress  # they come with scikit-learn, at once
  return read_digits()


DIGITS = Reader(_read, {"num_queries": 300, "num_validation": 200})
