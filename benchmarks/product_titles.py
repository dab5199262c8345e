"""Two sets of pairs out of product pictures: titles as they are, and without the type's words.

python benchmarks/product_titles.py --table fashion9k.tsv --pictures FOLDER \
  --weights mobilenetv2_100.safetensors --output DIR

Writes fashion_titles.npz and fashion_bare.npz (features, words, labels; docs/results.md) and the
tables fashion_titles.tsv and fashion_bare.tsv for configs/dudch.py:pairs with
--config.data.folder=FOLDER. One of several pictures with the same bytes is taken, and types that
at least 100 rows have. A title is bare without the words of its own type: singular, plural, and
what else such things are called.
"""

import argparse
import collections
import hashlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.data.augmentation import normalise, resize
from udh_jax.data.pictures import read_picture
from udh_jax.data.protocol import make_splits
from udh_jax.data.readers.table import read_table
from udh_jax.data.words import cut, indicators, make_vocabulary
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import load_weights

LEAST_OF_A_TYPE, WIDTH, SIDE, BATCH = 100, 128, 160, 64
ALSO_CALLED = {
  "Tshirts": "t tee tees shirt shirts tshirt",
  "Sweatshirts": "sweat shirt shirts",
  "Sunglasses": "glasses",
  "Flip Flops": "flipflop flipflops",
  "Jeans": "jean denim denims",
  "Kurtas": "kurti kurtis",
  "Trousers": "pant pants",
  "Heels": "heeled",
  "Watches": "watch",
}


def words_of_a_type(name: str) -> set[str]:
  """What a title may call a thing of this type."""
  words = set(ALSO_CALLED.get(name, "").split())
  for word in cut(name):
    single = word.removesuffix("s")
    words |= {word, single, f"{single}s", f"{single}es"}
  return words


def features_of(files: list[pathlib.Path], weights: str) -> np.ndarray:
  """MobileNetV2's features along the main directions of every second picture: ``[n, 128]``."""
  found = load_weights("mobilenetv2_100", weights)
  module = create_backbone("mobilenetv2_100", dtype=jnp.float32, padding=found.padding)

  @jax.jit
  def read(images):
    return module.apply(
      found.variables, normalise(resize(images, size=SIDE), found.mean, found.std)
    )

  rows = []
  for start in range(0, len(files), BATCH):
    pictures = np.stack([read_picture(file, 128) for file in files[start : start + BATCH]])
    filled = np.zeros((BATCH, *pictures.shape[1:]), np.uint8)
    filled[: len(pictures)] = pictures
    rows.append(np.asarray(read(filled))[: len(pictures)])
  features = np.concatenate(rows)
  directions = np.linalg.svd(features[::2], full_matrices=False)[2][:WIDTH]
  return (features @ directions.T).astype(np.float32)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  for name in ("table", "pictures", "weights", "output"):
    parser.add_argument(f"--{name}", required=True)
  options = parser.parse_args()
  folder, output = pathlib.Path(options.pictures), pathlib.Path(options.output)
  output.mkdir(parents=True, exist_ok=True)
  columns = read_table(options.table, ["id", "articleType", "text"])
  counts = collections.Counter(columns["articleType"])
  taken, seen = [], set()
  for row in zip(*columns.values(), strict=True):
    content = hashlib.sha256((folder / f"{row[0]}.jpg").read_bytes()).digest()
    if counts[row[1]] >= LEAST_OF_A_TYPE and content not in seen:
      seen.add(content)
      taken.append(row)
  class_names = sorted({kind for _, kind, _ in taken})
  labels = np.array([class_names.index(kind) for _, kind, _ in taken], np.int32)
  features = features_of([folder / f"{name}.jpg" for name, *_ in taken], options.weights)
  # The words are those of the training titles of the split that a run draws with seed 0.
  train = make_splits(
    labels,
    num_rows=len(labels),
    num_queries=1000,
    num_validation=1000,
    num_train=5000,
    evaluate_on="query",
    seed=0,
  ).train
  named = {name: words_of_a_type(name) for name in class_names}
  titles = [cut(text) for *_, text in taken]
  bare = [
    [word for word in words if word not in named[kind]]
    for words, (_, kind, _) in zip(titles, taken, strict=True)
  ]
  for name, texts in (("fashion_titles", titles), ("fashion_bare", bare)):
    known = make_vocabulary([texts[row] for row in train], min_count=5, max_words=5000)
    np.savez(
      output / f"{name}.npz",
      image=features,
      text=indicators(texts, known.words),
      label=labels,
      class_names=np.array(class_names),
    )
    lines = ["image\ttext\tarticleType"]
    for (picture, kind, text), words in zip(taken, texts, strict=True):
      lines.append(f"{picture}.jpg\t{text if texts is titles else ' '.join(words)}\t{kind}")
    (output / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    print(f"{name}: {len(taken):,} pairs, {len(known.words)} words, {known.covered:.1%} of titles")


if __name__ == "__main__":
  main()
