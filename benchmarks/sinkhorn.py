"""Sinkhorn against ott-jax on the same cost: the same iterations, the same marginal error.

python benchmarks/sinkhorn.py
"""

import argparse

import jax
import jax.numpy as jnp
import machine
import numpy as np
from ott.geometry import geometry
from ott.problems.linear import linear_problem
from ott.solvers.linear import sinkhorn as ott_sinkhorn

from udh_jax.clustering.sinkhorn import sinkhorn

SIZE, COLUMNS, ITERATIONS = 50_000, 100, 30


def column_error(cost, column_potential, epsilon):
  """Largest relative violation of a column after the rows have been met, in float64."""
  score = (np.asarray(column_potential, np.float64) - np.asarray(cost, np.float64)) / epsilon
  plan = np.exp(score - score.max(axis=1, keepdims=True))
  mass = (plan / plan.sum(axis=1, keepdims=True)).mean(axis=0)
  return np.abs(mass * COLUMNS - 1).max()


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--repeats", type=int, default=15, help="timed runs; the median is printed")
  repeats = parser.parse_args().repeats
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(SIZE, 64)).astype(np.float32)
  columns = rng.normal(size=(COLUMNS, 64)).astype(np.float32)
  cost = np.square(rows).sum(axis=1)[:, None] - 2 * rows @ columns.T
  cost = jnp.asarray(cost + np.square(columns).sum(axis=1))
  epsilon = 0.05 * float(cost.mean())

  @jax.jit
  def ott(cost):
    problem = linear_problem.LinearProblem(geometry.Geometry(cost_matrix=cost, epsilon=epsilon))
    solver = ott_sinkhorn.Sinkhorn(
      threshold=-1.0, min_iterations=ITERATIONS, max_iterations=ITERATIONS
    )
    return solver(problem).g

  def own(cost):
    return sinkhorn(
      cost, epsilon=epsilon, max_iterations=ITERATIONS, tolerance=None
    ).column_potential

  solvers = {"ott-jax": ott, "udh_jax": own}
  errors = {name: column_error(cost, run(cost), epsilon) for name, run in solvers.items()}
  times = machine.paired(
    {name: lambda run=run: jax.block_until_ready(run(cost)) for name, run in solvers.items()},
    repeats,
  )
  print(machine.describe())
  print(
    f"cost {SIZE:,} x {COLUMNS}, epsilon 0.05 of its mean, {ITERATIONS} iterations. s: median "
    "(least to most). Ratios: medians of paired runs, with quartiles.\n"
  )
  print("| | s | times ott-jax | largest relative error of a column |")
  print("|---|---|---|---|")
  for name, taken in times.items():
    ratio = times["ott-jax"].ratio_to(taken)
    print(f"| {name} | {taken} | {ratio} | {errors[name]:.2e} |")


if __name__ == "__main__":
  main()
