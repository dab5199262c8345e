"""Training step of MobileNetV2 against PyTorch on the CPU.

    pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    python benchmarks/mobilenet_training_step.py

Float32, 96 px, batch 64, 10 classes: forward, cross-entropy, backward and an SGD step with
momentum. Running statistics of the batch normalisation are frozen and its scale and bias trained,
in both. PyTorch runs the same network, see torch_networks.py, from the same start: both losses are
printed. It is timed in its default memory format and in channels_last, which is faster on most
processors. Steps take turns, so that a busy machine disturbs all alike; the median counts.
"""

import argparse
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import machine
import numpy as np
import optax
import torch
from safetensors.torch import load_file
from torch import nn
from torch_networks import MobileNet

from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import save_weights

LEARNING_RATE, MOMENTUM, CLASSES = 0.01, 0.9, 10


def jax_step(variables, images, labels):
  """One call is one step; returns the loss."""
  network = Classifier(create_backbone("mobilenetv2_100"), CLASSES)
  optimizer = optax.sgd(LEARNING_RATE, momentum=MOMENTUM)

  def step(state, images, labels):
    parameters, momenta = state

    def loss(parameters):
      logits, _ = network.apply(variables | {"params": parameters}, images)
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, gradients = jax.value_and_grad(loss)(parameters)
    updates, momenta = optimizer.update(gradients, momenta)
    return (optax.apply_updates(parameters, updates), momenta), value

  images, labels = jax.device_put((images, labels))
  state = (variables["params"], optimizer.init(variables["params"]))
  run = jax.jit(step, donate_argnums=0).lower(state, images, labels).compile()

  def call():
    nonlocal state
    state, value = run(state, images, labels)
    jax.block_until_ready(state)
    return float(value)

  return call


def torch_step(weights, images, labels, memory_format):
  """One call is one step; returns the loss."""
  network = MobileNet(CLASSES).to(memory_format=memory_format)
  missing, extra = network.load_state_dict(load_file(weights), strict=False)
  assert not extra and all(name.endswith("num_batches_tracked") for name in missing)
  network.eval()  # freezes the running statistics; scale and bias are trained
  optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, momentum=MOMENTUM)
  images = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(memory_format=memory_format)
  labels = torch.from_numpy(labels)

  def call():
    optimizer.zero_grad()
    value = nn.functional.cross_entropy(network(images), labels)
    value.backward()
    optimizer.step()
    return value.item()

  return call


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--size", type=int, default=96)
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--steps", type=int, default=12)
  options = parser.parse_args()
  torch.set_num_threads(len(os.sched_getaffinity(0)))

  rng = np.random.default_rng(0)
  shape = (options.batch, options.size, options.size, 3)
  images = rng.standard_normal(shape).astype(np.float32)
  labels = rng.integers(0, CLASSES, options.batch)
  network = Classifier(create_backbone("mobilenetv2_100"), CLASSES)
  variables = jax.jit(network.init)(jax.random.key(0), images[:1])
  with tempfile.TemporaryDirectory() as folder:
    weights = pathlib.Path(folder) / "start.safetensors"
    save_weights("mobilenetv2_100", variables, weights)
    steps = {
      "PyTorch, default format": torch_step(weights, images, labels, torch.contiguous_format),
      "PyTorch, channels_last": torch_step(weights, images, labels, torch.channels_last),
      "udh_jax": jax_step(variables, images, labels),
    }
  losses = {name: [step() for _ in range(3)] for name, step in steps.items()}
  times = machine.paired(steps, options.steps)

  print(machine.describe(f"torch {torch.__version__}") + "\n")
  print(
    f"MobileNetV2, {options.size} px, batch {options.batch}, float32, {options.steps} steps. ms an "
    "image: median (least to most). Ratios: medians of paired steps, with quartiles.\n"
  )
  print("| training step | ms an image | of PyTorch's | of channels_last | first losses |")
  print("|---|---|---|---|---|")
  default, last = (times[name] for name in list(steps)[:2])
  for name, taken in times.items():
    shown = " ".join(f"{loss:.4f}" for loss in losses[name])
    print(
      f"| {name} | {taken.each(options.batch)} | {taken.ratio_to(default)} "
      f"| {taken.ratio_to(last)} | {shown} |"
    )


if __name__ == "__main__":
  main()
