"""Equal-size k-means against k-means-constrained, from the same start centroids.

  python benchmarks/equal_size_kmeans.py --features FILE.npy

The features are float32 [n, d]; the first 20,000 are taken and reduced to 64 dimensions by PCA.
Without a file a made mixture of overlapping Gaussians stands in for them.
"""

import argparse
import os
import time

import jax
import machine
import numpy as np
from k_means_constrained import KMeansConstrained

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans

SIZE, DIM, ITERATIONS = 20_000, 64, 30


def made_features(rng):
  """Thirty overlapping Gaussians of unequal weight and falling spectrum."""
  spectrum = 1 / np.sqrt(1 + np.arange(DIM))
  means = rng.normal(size=(30, DIM)) * spectrum
  component = rng.choice(30, SIZE, p=rng.dirichlet(np.full(30, 2.0)))
  return (means[component] + rng.normal(size=(SIZE, DIM)) * spectrum).astype(np.float32)


def reduced_features(path):
  features = np.asarray(np.load(path, mmap_mode="r")[:SIZE], np.float32)
  features = features - features.mean(axis=0)
  if features.shape[1] > DIM:
    features = features @ np.linalg.svd(features.T @ features)[0][:, :DIM]
  return np.ascontiguousarray(features)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--features", help="float32 .npy file [n, d]; a made mixture without it")
  parser.add_argument("--repeats", type=int, default=3)
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  if arguments.features:
    features, origin = reduced_features(arguments.features), os.path.basename(arguments.features)
  else:
    features, origin = made_features(rng), "made mixture"
  print(machine.describe())
  print(
    f"features: {origin}, {features.shape[0]:,} x {features.shape[1]}, {ITERATIONS} iterations\n"
  )
  print(
    "| K | k-means-constrained, s | udh_jax, s | times the peer | compilation, s | inertia ratio "
    "| sizes |"
  )
  print("|---|---|---|---|---|---|---|")
  for count in (10, 100):
    init = features[rng.choice(len(features), count, replace=False)]
    low, high = len(features) // count, -(-len(features) // count)
    peer = KMeansConstrained(
      count, size_min=low, size_max=high, init=init, n_init=1, max_iter=ITERATIONS
    )

    def run(count=count, init=init):
      out = equal_size_kmeans(
        features, count, key=jax.random.key(0), init=init, max_iterations=ITERATIONS
      )
      return jax.block_until_ready(out)

    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    times = machine.paired(
      {"peer": lambda peer=peer: peer.fit(features), "udh_jax": run}, arguments.repeats
    )
    peer_time, own_time = times["peer"], times["udh_jax"]
    out = own_time.result
    print(
      f"| {count} | {peer_time} | {own_time} | {peer_time.ratio_to(own_time)} "
      f"| {first - np.median(own_time.runs):.1f} "
      f"| {float(out.inertia) / peer_time.result.inertia_:.5f} "
      f"| {int(out.sizes.min())} to {int(out.sizes.max())} |",
      flush=True,
    )


if __name__ == "__main__":
  main()
