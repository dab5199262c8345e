"""A network over every image, once, in row order: each device fills its own block of rows."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from udh_jax.data.loader import read_batches
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.sharding import split_rows


def map_rows(
  context: Context,
  function: Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]],
  constants: Any,
  *,
  batch_size: int,
  finish: Callable[[dict[str, jax.Array]], dict[str, Any]],
  row_outputs: tuple[str, ...],
  images: bool = True,
) -> Work:
  """Work that applies ``function`` to all images of the data set.

  Args:
    context: Devices and images.
    function: ``(constants, batch) -> values``: a batch as `read_batches` makes it (row numbers
      ``index`` are -1 for padding) to a dict of arrays ``[b, ...]``.
    constants: What ``function`` needs besides: arrays on all devices.
    batch_size: Images a device takes at a time.
    finish: From the dict of arrays ``[padded rows, ...]`` to the stage's outputs.
    row_outputs: Which outputs have one row an image.
    images: Whether batches hold images, or their numbers and texts alone.

  Returns:
    The work; its state is the rows done so far.
  """
  mesh = context.mesh
  layout = mesh_lib.RowLayout(len(context.dataset.images), mesh.size)
  batch_size = min(batch_size, layout.rows_per_device)
  num_steps = layout.num_batches(batch_size)
  sharded = mesh_lib.row_sharding(mesh)
  dataset = context.dataset
  (example,) = read_batches(dataset, [np.array([-1])], images=images)
  shapes = jax.eval_shape(function, constants, example)

  spec = PartitionSpec(mesh_lib.DATA_AXIS)

  @functools.partial(
    jax.shard_map, mesh=mesh, in_specs=(spec, spec, PartitionSpec()), out_specs=spec
  )
  def write(block, values, offset):
    update = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=offset, axis=0)
    return jax.tree.map(update, block, values)

  @functools.partial(jax.jit, donate_argnums=0)
  def step(state, constants, batch, offset):
    values = function(constants, batch)
    values = jax.lax.with_sharding_constraint(values, sharded)
    return {"rows": write(state["rows"], values, offset)}

  def batches(first: int) -> Iterator[Any]:
    rows = [mesh_lib.local_rows(mesh, layout.batch(i, batch_size)) for i in range(num_steps)]
    read = read_batches(dataset, rows, start=first, images=images)
    try:
      for i, batch in zip(range(first, num_steps), read, strict=True):
        placed = {name: mesh_lib.shard_local(mesh, value) for name, value in batch.items()}
        yield placed, np.int32(layout.offset(i, batch_size))
    finally:
      read.close()

  zeros = jax.jit(
    lambda: jax.tree.map(
      lambda leaf: jnp.zeros((layout.padded_rows, *leaf.shape[1:]), leaf.dtype), shapes
    ),
    out_shardings=sharded,
  )
  return Work(
    state={"rows": zeros()},
    step=lambda state, batch: (step(state, constants, *batch), {}),
    num_steps=num_steps,
    batches=batches,
    finish=lambda state: finish(state["rows"]),
    row_state=("rows",),
    by_block=True,
    row_outputs=row_outputs,
    images_per_step=batch_size * mesh.size,
  )


def train_weights(context: Context) -> jax.Array:
  """1 for rows of the training split and 0 for others and for padding; float32, by rows."""
  mask = np.zeros(len(context.dataset.images), np.float32)
  mask[context.dataset.splits.train] = 1.0
  return split_rows(context.mesh, mask)
