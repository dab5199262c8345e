"""Known copies of real photographs, found by us and by imagededup: precision and recall.

  python benchmarks/duplicates.py make --photographs FOLDER... --copies DIR
  python benchmarks/duplicates.py encode --copies DIR --weights mobilenetv2_100.safetensors
  python benchmarks/duplicates.py ours --copies DIR
  python benchmarks/duplicates.py imagededup --copies DIR   # in an environment that has imagededup

`make` writes 1,000 photographs (500 of each of two folders, by name) and eight copies of each:
JPEG of quality 80, 50 and 20, half the size, cut by up to 8 hundredths at every border, brightened
by 1.3, mirrored, and with letters across. Truth are the 36 pairs of each photograph's nine files; a
pair that is found among other files counts against precision. `encode` makes the index (MobileNetV2
at 96 pixels, 64 random hyperplanes) and features for imagededup's CNN (the same network at 224
pixels), whose own weights come from the internet.
"""

import argparse
import itertools
import pathlib
import time

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

KINDS = ("q80", "q50", "q20", "half", "cut", "bright", "mirror", "letters")


def copies(image, rng):
  width, height = image.size
  for quality in (80, 50, 20):
    yield f"q{quality}", image, quality
  yield "half", image.resize((width // 2, height // 2), Image.LANCZOS), 90
  left, top, right, bottom = rng.uniform(0, 0.08, 4)
  box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
  yield "cut", image.crop(tuple(int(x) for x in box)), 90
  yield "bright", ImageEnhance.Brightness(image).enhance(1.3), 90
  yield "mirror", ImageOps.mirror(image), 90
  layer = Image.new("RGBA", image.size)
  font = ImageFont.load_default(width * 0.11)
  place = (width * 0.1, height * 0.45)
  ImageDraw.Draw(layer).text(place, "(c) example.com", fill=(255, 255, 255, 150), font=font)
  yield "letters", Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB"), 90


def make(options):
  folder = pathlib.Path(options.copies) / "pictures"
  folder.mkdir(parents=True)
  files = []
  for source in options.photographs:
    files += sorted(pathlib.Path(source).rglob("*.jpg"))[options.skip : options.skip + 500]
  for number, file in enumerate(files):
    image = Image.open(file).convert("RGB")
    image.save(folder / f"{number:04d}_original.jpg", quality=95)
    for kind, copy, quality in copies(image, np.random.default_rng(number)):
      copy.save(folder / f"{number:04d}_{kind}.jpg", quality=quality)
  print(f"{len(files)} photographs, {len(files) * 9} files")


def encode(options):
  import jax

  from udh_jax.data.augmentation import normalise, resize
  from udh_jax.encoders.folder import encode_folder
  from udh_jax.encoders.image import Encoder
  from udh_jax.models.registry import create_backbone
  from udh_jax.models.weights import load_weights

  folder = pathlib.Path(options.copies)
  weights = load_weights("mobilenetv2_100", pathlib.Path(options.weights))
  about = {
    "backbone": "mobilenetv2_100",
    "padding": "same",
    "dtype": "float32",
    "image_size": 96,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
    "bits": 64,
    "picture_size": 96,
    "labels_used": "ImageNet",
    "method": "random hyperplanes",
    "scores": {},
  }
  kernel = jax.random.normal(jax.random.key(0), (1280, 64))
  variables = {"backbone": weights.variables, "hash": {"kernel": kernel, "bias": np.zeros(64)}}
  encode_folder(Encoder(variables, about), folder / "pictures", folder / "a.index")
  if options.no_features:
    return
  from udh_jax.data.pictures import read_picture

  module = create_backbone("mobilenetv2_100", padding="same")
  forward = jax.jit(
    lambda images: module.apply(
      weights.variables, normalise(resize(images, size=224), about["mean"], about["std"])
    )
  )
  files, features = sorted((folder / "pictures").glob("*.jpg")), []
  for start in range(0, len(files), 50):
    features.append(forward(np.stack([read_picture(f, 224) for f in files[start : start + 50]])))
  names = [file.name for file in files]
  np.savez(folder / "features.npz", names=names, features=np.concatenate(features))


def show(name, pairs, names, seconds):
  """One row: precision and recall over pairs, and recall of each kind beside its original."""
  pairs = {tuple(sorted(pair)) for pair in pairs}
  right = {pair for pair in pairs if pair[0][:4] == pair[1][:4]}
  numbers = {name[:4] for name in names}
  recalls = [
    np.mean([tuple(sorted((f"{n}_original.jpg", f"{n}_{kind}.jpg"))) in right for n in numbers])
    for kind in KINDS
  ]
  precision = len(right) / max(len(pairs), 1)
  recall = len(right) / (36 * len(numbers))
  cells = [f"{precision:.4f}", f"{recall:.4f}", *(f"{r:.3f}" for r in recalls), f"{seconds:.0f}"]
  print(f"| {name} | {' | '.join(cells)} |", flush=True)
  return sorted({(a[:4], b[:4]) for a, b in pairs - right})


def header(names):
  print(f"{len(names)} files\n")
  print(f"| | precision | recall | {' | '.join(KINDS)} | s |")
  print("| --- |" + " ---: |" * (len(KINDS) + 3))


def ours(options):
  from udh_jax.duplicates.find import REACH, find_duplicates
  from udh_jax.retrieval import HammingIndex

  folder = pathlib.Path(options.copies)
  index = HammingIndex.load(folder / "a.index")
  header(index.names)
  for reach in options.reach or [REACH]:
    start = time.perf_counter()
    found = find_duplicates(index, folder / "pictures", reach=reach)
    seconds = time.perf_counter() - start
    pairs = [
      pair for group in found.groups for pair in itertools.combinations([c.name for c in group], 2)
    ]
    wrong = show(f"udh-jax duplicates, reach {reach}", pairs, index.names, seconds)
  print(f"\n{found.num_candidates:,} pairs were compared; photographs taken for one: {wrong}")


def imagededup(options):
  from imagededup.methods import CNN, DHash, PHash
  from imagededup.utils import CustomModel

  folder = pathlib.Path(options.copies)
  names = [file.name for file in sorted((folder / "pictures").glob("*.jpg"))]
  header(names)

  def pairs_of(found):
    return [(a, b) for a, others in found.items() for b in others]

  for method in (PHash, DHash):
    start = time.perf_counter()
    codes = method(verbose=False).encode_images(str(folder / "pictures"))
    once = time.perf_counter() - start
    for threshold in (2, 4, 6, 8, 10, 12, 14):
      start = time.perf_counter()
      found = method(verbose=False).find_duplicates(
        encoding_map=codes, max_distance_threshold=threshold
      )
      words = " (default)" if threshold == 10 else ""
      seconds = once + time.perf_counter() - start
      show(f"{method.__name__}, {threshold}{words}", pairs_of(found), names, seconds)
  data = np.load(folder / "features.npz")
  features = dict(zip(data["names"].tolist(), data["features"], strict=True))
  import torch

  model = CustomModel(name="MobileNetV2", model=torch.nn.Identity(), transform=lambda image: image)
  cnn = CNN(verbose=False, model_config=model)
  for threshold in (0.8, 0.85, 0.9, 0.95):
    start = time.perf_counter()
    found = cnn.find_duplicates(encoding_map=features, min_similarity_threshold=threshold)
    words = " (default)" if threshold == 0.9 else ""
    show(f"CNN, {threshold}{words}", pairs_of(found), names, time.perf_counter() - start)


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("step", choices=["make", "encode", "ours", "imagededup"])
  parser.add_argument("--copies", required=True)
  parser.add_argument("--photographs", nargs="+")
  parser.add_argument("--skip", type=int, default=0, help="other photographs of the same folders")
  parser.add_argument("--weights")
  parser.add_argument("--no-features", action="store_true")
  parser.add_argument("--reach", type=int, nargs="*")
  options = parser.parse_args()
  steps = {"make": make, "encode": encode, "ours": ours, "imagededup": imagededup}
  steps[options.step](options)


if __name__ == "__main__":
  main()
