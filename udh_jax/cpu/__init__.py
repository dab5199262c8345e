"""Kernels for the CPU, in numba, beside the JAX ones that they answer for.

`choice` decides which of the two serves a call; everything else here needs numba (pip install
udh_jax[cpu]) and is imported only then.
"""
