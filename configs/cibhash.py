"""CIBHash, a competing method, on the teacher, images and protocol of UDH-ECC's preset cifar10.

python train.py --config configs/cibhash.py:cifar10 --workdir runs/cibhash \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits, cifar10, mirflickr25k, folder (any folder of pictures). All but digits leave the
network as it is, as in the paper; rate, batch and temperature are the best of nineteen trials on
CIFAR-10, the rate of folder that of eleven on three small collections (docs/results.md).
"""

from udh_jax.methods import cibhash, competing, defaults

PRESETS = competing.presets(
  cibhash.default_config,
  "contrast",
  on_a_folder={"head_learning_rate": 0.03},
  trained="head",
  steps=1000,
  batch_size=256,
  head_learning_rate=0.01,
  temperature=1.0,
)


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/cibhash.py")()
