"""Codes in, a verdict without labels out: do the learned ones beat ITQ on the untouched network?"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.protocol import Splits, permutation
from udh_jax.retrieval.agreement import agreement, nearest_agreement
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import fitted
from udh_jax.stages.hash_network import first_hash_function, layer_codes, linear_layer
from udh_jax.stages.network import backbone_variables, mean_of_weights
from udh_jax.stages.partitions import HELD_TO

MOST_QUERIES = 1000
LOST = 0.15  # of ITQ's agreement is too much, see `is_far_below`
NEAREST = 0.95  # of ITQ's agreement among the nearest is to be kept, see `keeps_the_nearest`
BORNE = 0.02  # of ITQ's agreement; so much of the whole ranking may be given for the nearest
TRAINED_SHARE = 0.5  # of the hash layer that is compared; the rest is the one it started at


def _some(rows: np.ndarray, most: int) -> np.ndarray:
  """At most so many of the rows, the same ones each time, in ascending order."""
  return rows if len(rows) <= most else np.sort(rows[permutation(len(rows), 0)[:most]])


def held_out_rows(splits: Splits) -> np.ndarray:
  """Images of the database that are left out of the training, in ascending order."""
  return np.setdiff1d(splits.database, splits.train)


def compared_rows(context: Context) -> tuple[np.ndarray, np.ndarray]:
  """Queries that codes are compared on, at most 1,000, and the training images they are sought in.

  Queries are of the database, but not trained on. Where all of it is, they are at most half of the
  training images, and sought in the others: an image is never its own neighbour.
  """
  splits = context.dataset.splits
  if len(held_out := held_out_rows(splits)):
    return _some(held_out, MOST_QUERIES), splits.train
  queries = _some(splits.train, min(MOST_QUERIES, max(1, len(splits.train) // 2)))
  others = np.setdiff1d(splits.train, queries)
  return queries, others if len(others) else splits.train  # of one image there are no others


def _compared(context: Context, arrays: Iterable[jax.Array]) -> list[tuple[np.ndarray, np.ndarray]]:
  """Of arrays with a row for each image, those of `compared_rows`: queries, and their database."""
  num_rows = len(context.dataset.images)
  queries, database = compared_rows(context)
  on_host = (mesh_lib.to_host(rows, num_rows) for rows in arrays)
  return [(rows[queries], rows[database]) for rows in on_host]


def agreements(
  context: Context, partitions: Mapping[str, Any], codes: Sequence[jax.Array]
) -> np.ndarray:
  """The `agreement` of codes with clusterings of the view that nothing was trained on.

  Args:
    context: Devices and images.
    partitions: Outputs of the stage `udh_jax.stages.partitions`.
    codes: Of all images, by several hash functions. uint8 arrays ``[rows, bytes]``.

  Returns:
    Float array of shape ``[codes, sizes of clusters, queries]``, of the `compared_rows`.
  """
  by_size = (partitions["held_to"][str(number)] for number in range(len(HELD_TO)))
  clusters = _compared(context, by_size)
  return np.array(
    [[agreement(*found, *held) for held in clusters] for found in _compared(context, codes)]
  )


def nearest_agreements(
  context: Context, partitions: Mapping[str, Any], codes: Sequence[jax.Array]
) -> np.ndarray:
  """The `nearest_agreement` of codes with the finer clusterings of that view.

  Args:
    context: Devices and images.
    partitions: Outputs of the stage `udh_jax.stages.partitions`.
    codes: As of `agreements`.

  Returns:
    Float array of shape ``[codes]``, of the `compared_rows`.
  """
  (clusters,) = _compared(context, [partitions["near_to"]])
  return np.array([nearest_agreement(*found, *clusters) for found in _compared(context, codes)])


@jax.jit
def halfway(started: Any, trained: Any) -> Any:
  """The hash layer that is handed on where it was trained alone: the mean with its start."""
  return mean_of_weights(started, trained, TRAINED_SHARE)


def best_row(found: np.ndarray) -> int:
  """Which codes to keep: the first, unless later ones clearly agree better at every size.

  Args:
    found: Average precision, from `agreements`: the learned codes first, ITQ's last.

  Returns:
    The row. A later one is taken if the mean of its differences, image by image, is above their
    standard error at every number of clusters.

  References:
    Our own rule. Codes that gather classes lose agreement with clusters that are finer than these,
    so that less than all says nothing; docs/results.md has how often it is right.
  """
  best = 0
  for row in range(1, len(found)):
    gains = found[row] - found[best]  # [sizes, images]
    error = gains.std(axis=1) / np.sqrt(gains.shape[1])
    if (gains.mean(axis=1) > error).all():
      best = row
  return best


def over_itq(agreement: Any) -> np.ndarray:
  """Agreement in parts of ITQ's.

  Args:
    agreement: Array of shape ``[..., candidates + 1, sizes]``, the last candidate ITQ.

  Returns:
    Array of that shape.
  """
  agreement = np.asarray(agreement)
  return agreement / np.maximum(agreement[..., -1:, :], 1e-12)


def mean_ratios(agreement: Any) -> np.ndarray:
  """Agreement of candidates over ITQ's, the mean over the lengths of codes.

  Args:
    agreement: Array of shape ``[lengths, candidates + 1, sizes]``, the last candidate ITQ.

  Returns:
    Array of shape ``[candidates + 1, sizes]``.
  """
  return over_itq(agreement).mean(axis=0)


def keeps_the_nearest(nearest: np.ndarray, ranking: np.ndarray) -> np.ndarray:
  """Whether codes keep enough of the nearest.

  Args:
    nearest: From `nearest_agreements`, in parts of ITQ's. Array of shape ``[n]``.
    ranking: From `agreements`, in parts of ITQ's. Array of shape ``[n]``.

  Returns:
    True where their product is `NEAREST` or more. Clusters so fine may cut through what belongs
    together, so that fewer of them among the nearest are no loss; that the ranking gains tells so.

  References:
    Our own rule; docs/results.md tells how it was found and tried.
  """
  return nearest * ranking >= NEAREST


def itq_suits(discriminant: Mapping[str, Any]) -> bool:
  """Whether ITQ agrees better than discriminant codes at every number of clusters.

  Args:
    discriminant: Outputs of the stage `udh_jax.stages.discriminant`: the mean over its lengths.
  """
  ratios = mean_ratios(discriminant["agreement"])
  return bool((ratios[int(discriminant["chosen"])] < 1).all())


def is_far_below(learned: np.ndarray, itq: np.ndarray) -> bool:
  """Whether codes agree so much less than ITQ's that training went wrong.

  Args:
    learned: Average precision, from `agreements`: array of shape ``[sizes of clusters, queries]``.
    itq: That of ITQ's codes.

  Returns:
    True if the mean is more than `LOST` below ITQ's, in parts of it, at every number of clusters.

  References:
    Our own rule.
  """
  return bool((learned.mean(axis=1) < (1 - LOST) * itq.mean(axis=1)).all())


def guard(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Compares learned codes with ITQ's; on a network that stayed as it is, keeps the better ones.

  On such a network the learned hash layer is the mean of the trained one and of its start: training
  gains on some collections and loses on others, and halfway there keeps most of the gain.

  Inputs: ``partitions``, ``baselines``; and either ``encoded``, codes of a network of its own, or
  ``network`` with ``start``, ``features`` and ``discriminant``, where all are hash layers on one
  network. ITQ's codes are then kept where `itq_suits`: of one length alone the comparison is noisy.
  ``adapted``, where there is one, is the network that `udh_jax.stages.adapt` handed on; baselines
  are of the features ``untouched`` of the ``teacher`` before it. Where it is another network, its
  codes agree less with that teacher's clusters, good ones too: they give way to ITQ's by
  `is_far_below`.

  Outputs: ``agreement`` float32 ``[candidates, sizes]``: of the learned codes, of the start where
  there is one, and of ITQ; ``chosen``, the row that is kept; and for hash layers on one network
  ``codes`` and the network of that row.

  References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022 (the mean of weights before
    and after training); the rest is our own.
  """
  itq = inputs["baselines"]["itq"]
  whole = functools.partial(mesh_lib.replicate, context.mesh)

  def verdict(found, chosen):
    agreement = jnp.asarray(found.mean(axis=2), jnp.float32)
    return {"agreement": whole(agreement), "chosen": whole(jnp.int32(chosen))}

  def compare(state):
    del state
    found = agreements(context, inputs["partitions"], [inputs["encoded"]["codes"], itq])
    chosen = mesh_lib.agreed(best_row(found))
    return verdict(found, chosen)

  if "encoded" in inputs:
    return Work(finish=compare)
  network, start = inputs["network"], inputs["start"]

  def finish(state):
    del state
    features = dict(inputs["features"])
    started = linear_layer(context, features, first_hash_function(inputs))
    trained = dict(network["variables"]["params"]["hash"])
    learned = halfway(started, trained)
    codes = [layer_codes(learned, features), start["codes"], itq]
    found = agreements(context, inputs["partitions"], codes)
    best = best_row(found[:2])
    if "adapted" in inputs and int(inputs["adapted"]["adapted"]):
      itq_is_better = is_far_below(found[best], found[2])
    else:
      itq_is_better = itq_suits(inputs["discriminant"])
    chosen = mesh_lib.agreed(2 if itq_is_better else best)
    layer, variables = learned if chosen == 0 else started, dict(network["variables"])
    if chosen == 2:
      untouched = dict(inputs.get("untouched", inputs["features"]))
      layer = linear_layer(context, untouched, fitted(inputs["baselines"], "itq"))
      if "teacher" in inputs:
        backbone = backbone_variables(inputs["teacher"])
        variables |= {
          kind: {**variables[kind], "backbone": of_kind} for kind, of_kind in backbone.items()
        }
    variables["params"] = {**variables["params"], "hash": whole(layer)}
    return {
      **verdict(found, chosen),
      "codes": codes[chosen],
      "variables": variables,
      "about": network["about"],
    }

  return Work(finish=finish, row_outputs=("codes",))


# With ``encoded`` among its inputs it has no codes of its own.
# Version 2: the learned layer is the mean of the trained one and its start.
# Version 3: where no image is held out, none is its own neighbour.
# Version 4: agreement does not depend on the order of the images.
STAGE = Stage("guard", guard, ("bits",), version=4)
