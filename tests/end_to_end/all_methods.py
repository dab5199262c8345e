"""Every method to its end, in one process or in several that start this together.

python all_methods.py FOLDER [HOST:PORT NUM_PROCESSES PROCESS_ID]

FOLDER holds what `made_data` has made. Scores go to FOLDER/NAME/scores.json, by the name of the
run and the row of its table, where NAME tells of the devices.
"""

import functools
import json
import pathlib
import shutil
import sys

import numpy as np

BITS, NUM_PICTURES = 8, 150


# Methods whose first stages are those of CIBHash; they restore them.
ALIKE = ("bihalf", "ssdh", "dhih", "csq", "itq")
FIRST_STAGES = ("teacher", "features_1", f"baselines_{BITS}bits")


def copy_stages(workdir: pathlib.Path, name: str) -> None:
  """Puts the first stages of CIBHash's run into another run."""
  for stage in FIRST_STAGES:
    parts = ("stages", stage)
    shutil.copytree(workdir.joinpath("cibhash", *parts), workdir.joinpath(name, *parts))


def made_data(folder: pathlib.Path) -> None:
  """Pairs of features, pictures with tags, and weights of a network that was never trained."""
  import jax
  from PIL import Image

  from udh_jax.models.registry import create_backbone
  from udh_jax.models.weights import save_weights

  rng = np.random.default_rng(0)
  labels = np.arange(150) % 3
  centres = rng.normal(size=(3, 16))
  np.savez(
    folder / "pairs.npz",
    image=(centres[labels] + 0.8 * rng.normal(size=(150, 16))).astype(np.float32),
    text=rng.random((150, 8)) < np.where(np.arange(8) % 3 == labels[:, None], 0.9, 0.1),
    label=labels,
  )
  tagged, classes = folder / "mirflickr", folder / "classes"
  (tagged / "meta" / "tags").mkdir(parents=True)
  (tagged / "annotations_v080").mkdir()
  colors = {"sea": (20, 60, 200), "city": (150, 140, 130), "wood": (40, 120, 50)}
  for number in range(1, NUM_PICTURES + 1):
    label = tuple(colors)[number % 3]
    noise = rng.integers(-90, 90, (18, 20, 3)) + colors[label]
    picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    (classes / label).mkdir(parents=True, exist_ok=True)
    for path in (tagged / f"im{number}.jpg", classes / label / f"{number}.jpg"):
      picture.save(path)
    (tagged / "meta" / "tags" / f"tags{number}.txt").write_text(f"{label}\n{label}scape")
    with (tagged / "annotations_v080" / f"{label}.txt").open("a") as file:
      file.write(f"{number}\n")
  images = np.zeros((1, 8, 8, 3), np.float32)
  variables = jax.jit(create_backbone("small_convnet").init)(jax.random.key(0), images)
  save_weights("small_convnet", variables, folder / "small.safetensors")


def configurations(folder: pathlib.Path) -> dict:
  """Every method, and each kind of its data, by the name of its run; a few steps each."""
  from udh_jax.methods import (
    baseline,
    bihalf,
    cibhash,
    defaults,
    dhih,
    djsrh,
    dudch,
    pair_contrast,
    psch,
    ssdh,
    ucch,
    udh_ecc,
  )

  weights = str(folder / "small.safetensors")
  views = defaults.augmentation(flip=False)
  found = {}

  def on_pictures(name, config, training="", **changes):
    config.update(bits=BITS, checkpoint_every=2)
    config.data.update(path=str(folder / "classes"), num_queries=30, image_size=8)
    config.teacher.update(backbone="small_convnet", weights=weights, image_size=8)
    config.features.update(image_sizes=(8,), batch_size=50)
    config.score.at = 0
    if "encode" in config:
      config.encode.batch_size = 50
    if training:
      config.student.image_size = 8
      config[training].update(steps=3, batch_size=18, augment=views, **changes)
    if "cluster" in config:
      config.cluster.update(num_clusters=4, num_restarts=2)
    found[name] = config
    return config

  config = on_pictures("udh_ecc", udh_ecc.default_config("folder"), "distill")
  config.teacher.weights = ""  # the one teacher that is trained
  config.rounds = 1
  config.cluster.num_clusters = 3  # as there are classes: no label hangs on the last digit
  config.pretrain.update(steps=9, batch_size=30, augment=views)
  config.finetune.update(steps=3, batch_size=18, augment=views)
  config = on_pictures("udh_ecc_frozen", udh_ecc.default_config("folder"), "distill")
  config.rounds = 1
  config.data.held_out = 10
  config.finetune.update(steps=3, batch_size=18)
  config.finetune.trained = config.distill.trained = "head"
  config.views = {"number": 2, "image_size": 8, "augment": views}
  on_pictures("cibhash", cibhash.default_config("folder"), "contrast")
  on_pictures("bihalf", bihalf.default_config("folder"), "bihalf")
  on_pictures("ssdh", ssdh.default_config("folder"), "ssdh")
  config = on_pictures("psch", psch.default_config("folder"), "psch", unsure="structure")
  config.rounds = config.networks = 2
  config.psch.hash_start = "random"  # ITQ's of the second round's features is turned by rounding
  # As many clusters as classes and one start: of two that end alike rounding would take either.
  # More neighbours than a class has images: in a graph in pieces all of a piece lie at one place.
  # All images are confident: which of two at the threshold is, rounding would say in round two.
  config.cluster.update(space="neighbours", neighbours=60, dims=3, num_clusters=3, num_restarts=1)
  config.cluster.threshold_quantile = 1.0
  on_pictures("dhih", dhih.default_config("folder"), "supervised")
  config = on_pictures("csq", dhih.default_config("folder", method="csq"), "supervised")
  config.supervised.update(steps=9, trained="head")
  on_pictures("itq", baseline.default_config("folder"))

  def on_pairs(name, config):
    config.update(bits=BITS, checkpoint_every=20)
    for section in {"djsrh", "student", "contrast", "ucch"} & {*config}:
      config[section].update(hidden=16, batch_size=18, epochs=2)
    if "student" in config:
      config.student.update(rounds=2, sampled_pairs=50)
    found[name] = config
    return config

  pair_methods = {"djsrh": djsrh, "dudch": dudch, "pair_contrast": pair_contrast, "ucch": ucch}
  for name, method in pair_methods.items():
    config = on_pairs(name, method.default_config("features", path=str(folder / "pairs.npz")))
    config.data.num_queries = 30
  config = dudch.default_config("mirflickr25k", path=str(folder / "mirflickr"))
  config = on_pairs("dudch_pictures", defaults.on_picture_pairs(config))
  config.data.update(num_queries=30, num_train=0, image_size=8, min_tag_count=2)
  config.teacher.update(backbone="small_convnet", weights=weights)
  config.features.image_sizes = (8,)
  config.djsrh.image_size = config.student.image_size = 8
  config.score.at = 0
  return found


def main(folder: pathlib.Path, *process: str) -> None:
  """Runs all of them on all devices of all processes."""
  from udh_jax.methods.run import train
  from udh_jax.report import sections
  from udh_jax.runtime import mesh as mesh_lib

  if process:
    address, count, number = process[0], int(process[1]), int(process[2])
    mesh_lib.initialize(coordinator=address, num_processes=count, process_id=number)
  import jax

  sections.GALLERY_QUERIES = 2
  workdir = folder / f"{jax.process_count()}_processes_{jax.device_count()}_devices"
  scores = {}
  for name, config in configurations(folder).items():
    if name in ALIKE:
      mesh_lib.on_main(f"copy to {name}", functools.partial(copy_stages, workdir, name))
    scores[name] = train(config, workdir / name)
  if mesh_lib.is_main():
    (workdir / "scores.json").write_text(json.dumps(scores))


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
  main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
