"""What a stage is: a pure function from configuration and inputs to work that can be stopped."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from udh_jax.configuration import select
from udh_jax.data.types import Dataset

Tree = Any
Inputs = Mapping[str, Any]  # outputs of earlier stages, by role


class Context(NamedTuple):
  """What every stage of a run shares.

  Attributes:
    mesh: All devices, one axis named ``data``.
    dataset: The images and their splits; labels for scoring, and for stages that read them.
  """

  mesh: Mesh
  dataset: Dataset


class Work(NamedTuple):
  """A stage's computation, written so that a runner can save it, stop it and take it up again.

  All state is in ``state``; ``step`` and ``finish`` are pure. What a step reads besides is a pure
  function of its number, so the number is the whole of the data position.

  Attributes:
    state: The state before the first step: a dict of pytrees of arrays over all devices.
    step: ``(state, batch) -> (state, metrics)``; metrics are scalars by name.
    num_steps: How many steps there are.
    batches: ``first step -> iterator`` over the batches from that step on.
    finish: ``state -> outputs``: a dict of pytrees of arrays over all devices.
    row_state: Keys of ``state`` whose arrays have one row an image, split over the devices.
    by_block: Whether a step does a batch of each device's rows, so that what is half done can go on
      with as many devices and batches of as many rows only.
    row_outputs: The same for ``outputs``.
    images_per_step: Images a step takes, for the rate that is shown; 0 shows steps.
  """

  finish: Callable[[Tree], dict[str, Tree]]
  state: dict[str, Tree] = {}  # noqa: RUF012
  step: Callable[[Tree, Tree], tuple[Tree, dict[str, Any]]] | None = None
  num_steps: int = 0
  batches: Callable[[int], Iterator[Tree]] | None = None
  row_state: tuple[str, ...] = ()
  by_block: bool = False
  row_outputs: tuple[str, ...] = ()
  images_per_step: int = 0


class Stage(NamedTuple):
  """One step of a method, connected to the others by checkpoints.

  A module of `udh_jax.stages` has one as ``STAGE``; a method names it and says what it receives.

  Attributes:
    name: Its folder in the work directory, and what is shown while it runs.
    build: ``(context, config, inputs) -> Work``. Pure. ``config`` holds ``fields`` and no more.
    fields: Configuration fields that the stage reads, dotted; a section stands for all in it.
    free: Those of them that decide no result, such as how many images are encoded at once.
    version: Of its formula. Raise it when the same fields and inputs give other outputs than
      before, so that results of older code are not taken for those of the new.
    inputs: By role, the name of the earlier stage whose outputs the stage receives.
    files: ``config -> digests``, by field, of the files that these name; "" where there is none
      here.
    reads_labels: Whether the stage learns from labels of the training images; all others are given
      a data set without labels.
    settings: Values of fields of the top level that are the stage's own, whatever the configuration
      has.
  """

  name: str
  build: Callable[..., Work]
  fields: tuple[str, ...]
  free: tuple[str, ...] = ()
  version: int = 1
  inputs: Mapping[str, str] = {}
  files: Callable[[Any], dict[str, str]] | None = None
  reads_labels: bool = False
  settings: Mapping[str, Any] = {}

  def named(self, name: str, **inputs: str) -> "Stage":
    """This stage under a name, with the stages that it receives outputs of, by role."""
    return self._replace(name=name, inputs=inputs)

  def with_settings(self, **settings: Any) -> "Stage":
    """This stage with values of its own for configuration fields of the top level."""
    return self._replace(settings={**self.settings, **settings})

  def read(self, config: ConfigDict) -> ConfigDict:
    """The fields of the whole configuration that the stage reads, with its own values."""
    chosen = select(config, self.fields)
    chosen.update(self.settings)
    return chosen

  def with_options(self, **options: Any) -> "Stage":
    """This stage with keyword arguments of ``build`` that are not configuration fields."""
    return self._replace(build=functools.partial(self.build, **options))
