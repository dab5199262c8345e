"""What `pip install udh_jax` promises, where the wheel and its core dependencies are and no more.

python .ci/wheel.py: pictures in, codes out, their neighbours found, from Python and from the shell.
A program that needs an extra says which.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import udh_jax
from udh_jax.models.registry import create_backbone

PROGRAM = str(pathlib.Path(sys.executable).with_name("udh-jax"))
ABOUT = {
  "backbone": "small_convnet",
  "padding": "symmetric",
  "dtype": "float32",
  "image_size": 16,
  "mean": [0.5, 0.5, 0.5],
  "std": [0.25, 0.25, 0.25],
  "bits": 24,
  "picture_size": 24,
  "labels_used": "none",
  "method": "random",
  "scores": {},
}


def make_encoder() -> udh_jax.Encoder:
  """A hash network with random weights."""
  images = jnp.zeros((1, 16, 16, 3))
  backbone = create_backbone(ABOUT["backbone"])
  variables = backbone.init(jax.random.key(0), images)
  kernel = jax.random.normal(jax.random.key(1), (backbone.feature_dim, ABOUT["bits"]))
  hash_layer = {"kernel": kernel, "bias": jnp.zeros(ABOUT["bits"])}
  return udh_jax.Encoder({"backbone": variables, "hash": hash_layer}, ABOUT)


def main():
  """Fails with a traceback where something is amiss."""
  for extra in ("tensorflow", "ml_collections", "faiss", "matplotlib", "sklearn", "numba"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is installed; use a fresh environment"
  assert "site-packages" in udh_jax.__file__, udh_jax.__file__
  assert (pathlib.Path(udh_jax.__file__).parent / "py.typed").is_file()

  rng = np.random.default_rng(0)
  codes = np.asarray(udh_jax.pack_codes(udh_jax.sign(rng.normal(size=(50, 24)))))
  bits = np.unpackbits(codes, axis=1)
  expected = (bits[:3, None] != bits).sum(axis=2)
  index = udh_jax.HammingIndex(codes, [str(row) for row in range(50)], num_bits=24)
  for found in (udh_jax.search(codes[:3], codes, 5), index.search(codes[:3], 5)):
    order = np.argsort(expected, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(expected, order, axis=1))

  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "pictures").mkdir()
    for number in range(6):
      picture = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
      Image.fromarray(picture).resize((40, 30)).save(folder / "pictures" / f"{number}.png")
    make_encoder().save(folder / "encoder")
    assert udh_jax.load_encoder(folder / "encoder").about["bits"] == 24

    def run(*arguments, status=0):
      done = subprocess.run(
        [PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, check=False
      )
      assert done.returncode == status, done.stderr
      return done

    run("encode", "--encoder", "encoder", "--images", "pictures", "--output", "mine.index")
    found = run("search", "--index", "mine.index", "--image", "pictures/4.png", "-k", "2", "--json")
    assert json.loads(found.stdout)["neighbours"][0] == {"name": "4.png", "distance": 0}
    for program in ("train", "eval"):
      (line,) = run(program, "--workdir", "run", status=2).stderr.splitlines()
      assert 'pip install "udh_jax[train]"' in line, line
  print(f"udh_jax {udh_jax.__version__}: the core alone encodes and searches")


if __name__ == "__main__":
  main()
