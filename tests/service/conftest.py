"""A small encoder, a folder of pictures with its index, and clients that check every answer."""

import contextlib
import logging
import pathlib

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

# Not part of the package's own needs: pip install "udh_jax[serve,test]".
pytest.importorskip("starlette", reason='the extra "serve" is not installed')

from PIL import Image
from starlette.testclient import TestClient

from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.pair import PairEncoder, pair_module
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service.access import Access
from udh_jax.service.application import Limits, Service
from udh_jax.service.encoding import Coder
from udh_jax.service.following import Following, IndexFile, Served, StoreTable
from udh_jax.service.thumbnails import Cache, Thumbnails

SIZES = (1, 4)


@pytest.fixture(autouse=True, scope="module")
def loggers_as_they_were():
  """A server takes the loggers of its process for itself; other tests share them."""
  loggers = [logging.getLogger(name) for name in ("udh_jax", "uvicorn.error", "uvicorn.access")]
  before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
  yield
  for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory, small_encoder):
  """Two encoders and where they are saved."""
  found = []
  for seed in (1, 2):
    encoder = small_encoder(seed, image_size=8, picture_size=8)
    folder = tmp_path_factory.mktemp(f"encoder{seed}")
    encoder.save(folder)
    found.append((encoder, folder))
  return found


@pytest.fixture(scope="session")
def pair_encoder(tmp_path_factory):
  """An encoder of pictures and words, and where it is saved."""
  about = {
    "backbone": "small_convnet", "padding": "symmetric", "dtype": "float32", "image_size": 8,
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "bits": 12, "picture_size": 8,
    "image_width": 0, "text_width": 4, "words": ["beach", "bear", "dog", "new york"],
    "hidden": 8, "dropout": 0.0, "labels_used": "none", "method": "pairs", "scores": {},
  }  # fmt: skip
  module = pair_module(about, "float32")
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros((1, 4)))
  encoder, folder = PairEncoder(variables, about), tmp_path_factory.mktemp("pair_encoder")
  encoder.save(folder)
  return encoder, folder


@pytest.fixture
def pictures(tmp_path, rng):
  """Nine pictures in two folders."""
  folder = tmp_path / "pictures"
  for i in range(9):
    path = folder / f"group {i % 2}" / f"{i}.{('png', 'jpg')[i % 2]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize((40, 30 + i)).save(path)
  return folder


@pytest.fixture
def index_path(tmp_path, pictures, encoders):
  encoder, source = encoders[0]
  path = tmp_path / "mine.index"
  encode_folder(encoder, pictures, path, source=str(source), batch_size=4)
  return path


@pytest.fixture(scope="session")
def compiled(encoders, pair_encoder):
  """Encoders as servers hold them, compiled once for all tests."""
  coders = [Coder(encoder, batch_sizes=SIZES) for encoder, _ in (*encoders, pair_encoder)]
  return {coder.digest: coder for coder in coders}


@pytest.fixture
def load(compiled):
  """Loads an index file as a server does, but for compiling its encoder anew."""

  def run(source):
    coder = next(iter(compiled.values()))
    if isinstance(source, IndexFile):
      made = HammingIndex.load(source.place).about.get("encoder", {})
      coder = compiled.get(made.get("digest"))
    if coder is not None:
      coder.prepare()
    return source.load(Served(None, coder, 0.0, None))

  return run


@pytest.fixture
def serve(tmp_path, load):
  """Serves an index to a client; every answer must be as openapi.json says."""
  with contextlib.ExitStack() as stack:

    def run(
      path, *, token=None, hosts=(), limits=None, follow_links=False, cache_bytes=2**20, **options
    ):
      source = path
      if not isinstance(source, StoreTable):
        source = IndexFile(path, batch_sizes=SIZES, **options)
      following = Following(source, load(source), every=0.02)
      service = Service(
        following,
        access=Access(token=token, hosts=hosts),
        thumbnails=Thumbnails(Cache(tmp_path / "thumbnails", cache_bytes), threads=2),
        limits=limits or Limits(),
        follow_links=follow_links,
      )
      application = service.application()
      client = TestClient(application, base_url="http://127.0.0.1:8000")
      client.event_hooks = {"response": [_Description(service.description()).check]}
      client = stack.enter_context(client)
      client.service, client.following = service, following
      return client

    yield run


class _Description:
  """Holds answers against the description of the interface."""

  def __init__(self, document):
    self._document = document

  def check(self, response):
    path, method = response.request.url.path, response.request.method.lower()
    described = self._document["paths"].get(path, {}).get(method)
    if described is None or response.status_code == 304:
      return
    expected = described["responses"].get(str(response.status_code))
    assert expected is not None, f"{method} {path}: status {response.status_code} is undescribed"
    kind = response.headers["content-type"].partition(";")[0]
    (allowed,) = expected["content"]
    assert kind == allowed or (allowed == "image/*" and kind.startswith("image/"))
    schema = expected["content"][allowed].get("schema")
    if schema is not None:
      response.read()
      jsonschema.Draft202012Validator(
        schema | {"components": self._document["components"]}
      ).validate(response.json())


@pytest.fixture(scope="session")
def rows_of():
  """Neighbours by counting bits, as an oracle: (distance, row), nearest first, ties by row."""

  def run(codes, code):
    distances = np.unpackbits(np.asarray(codes) ^ np.asarray(code), axis=1).sum(axis=1)
    return sorted((int(d), row) for row, d in enumerate(distances))

  return run


@pytest.fixture
def here():
  return pathlib.Path(__file__).resolve().parents[2]
