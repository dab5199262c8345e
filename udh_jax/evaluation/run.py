"""What a finished run leaves: scores, pictures, a report and the network, for any method."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.evaluation import images, pairs
from udh_jax.evaluation.found import Codes, Found
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.plan import Output, Plan
from udh_jax.runtime.stage import Context

_signs = jax.jit(lambda outputs: pack_codes(sign(outputs)))


def gather(context: Context, plan: Plan, outputs: Mapping[str, Any]) -> Found:
  """Reads what evaluation needs of a run's outputs into every process's memory.

  Every process calls it: restoring a stage and gathering an array are done together. What comes
  after is NumPy alone, and may be left to process 0.

  Args:
    context: Devices and items.
    plan: That has run.
    outputs: By stage.
  """
  num_rows = len(context.dataset.images)

  @functools.cache  # rows share outputs, and so do both sides where a pair has one code
  def packed(output: Output) -> np.ndarray:
    stage, key = output
    values = outputs[stage][key]
    if values.dtype != np.uint8:
      values = _signs(values)
    return mesh_lib.to_host(values, num_rows)

  def by_side(sides: Mapping[str, Output]) -> dict[str, np.ndarray]:
    return {side: packed(output) for side, output in sides.items()}

  def to_host(stage: str) -> Any:
    return jax.tree.map(mesh_lib.to_host, dict(outputs[stage]))

  codes = {}
  for source in plan.codes:
    wanted = [*source.query.values(), *(source.database or {}).values()]
    if all(key in outputs[stage] for stage, key in wanted):
      query = by_side(source.query)
      codes[source.title] = Codes(query, by_side(source.database) if source.database else query)
  return Found(
    codes,
    [mesh_lib.to_host(outputs[name]["labels"], num_rows) for name in plan.clusters],
    to_host(plan.network),
    [{name: to_host(name) for name in drawing.reads} for drawing in plan.drawings],
  )


def evaluate(
  context: Context,
  config: ConfigDict,
  plan: Plan,
  outputs: Mapping[str, Any],
  workdir: pathlib.Path,
) -> dict[str, float]:
  """Scores the codes of a run and writes what a run leaves for people.

  Every process calls it, process 0 writes, in the work directory: ``metrics.json``, the table
  ``metrics_{bits}bits.md``, pictures, ``report_{bits}bits.html`` with all of it, and the network
  that makes the codes, ``encoder_{bits}bits``.

  Args:
    context: Devices and items.
    config: The run's configuration.
    plan: That has run.
    outputs: By stage.
    workdir: Where to write.

  Returns:
    mAP by method, and by direction where items are pairs; empty where they have no labels, and in
    other processes than 0.
  """
  found = gather(context, plan, outputs)
  write = pairs.write if plan.has_texts else images.write
  scores = mesh_lib.on_main(
    "score", functools.partial(write, config, plan, context.dataset, found, workdir)
  )
  return scores or {}
