"""What public functions take for an array: JAX's or NumPy's."""

import jax
import numpy as np

Array = jax.Array | np.ndarray
