"""Networks of one start in, the mean of their weights out."""

import jax
from ml_collections import ConfigDict

from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.network import mean_of_weights


def average(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Averages the parameters of networks that were trained alike, from the same start.

  Inputs: the networks, under any names. What of their variables is not trained is the first's.

  Outputs: a network, of the same kind.

  References:
    Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves accuracy
    without increasing inference time, ICML 2022.
  """
  del context, config
  networks = [inputs[role] for role in sorted(inputs)]

  def finish(state):
    del state
    mean = networks[0]["variables"]["params"]
    for number, network in enumerate(networks[1:], start=2):
      mean = _step(mean, network["variables"]["params"], 1 / number)
    return {
      "variables": {**networks[0]["variables"], "params": mean},
      "about": networks[0]["about"],
    }

  return Work(finish=finish)


_step = jax.jit(mean_of_weights)

STAGE = Stage("average", average, ())
