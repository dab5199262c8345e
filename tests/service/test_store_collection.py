"""A table of a real database, served."""

import shutil
import time
import types

import numpy as np
import pytest

pytest.importorskip("lancedb")

from udh_jax.encoders.folder import encode_folder
from udh_jax.errors import InputError
from udh_jax.service import store_collection
from udh_jax.service.following import StoreTable
from udh_jax.service.problems import Problem
from udh_jax.service.store_collection import StoreCollection
from udh_jax.stores import Rows, StoreError, create_store, open_store

POST = "/v1/neighbours"


@pytest.fixture
def table(tmp_path, pictures, encoders):
  """Where a store is, and the index that it holds, with a year and a label for each item."""
  encoder, source = encoders[0]
  index = encode_folder(encoder, pictures, tmp_path / "mine.index", source=str(source))
  location = f"lancedb:{tmp_path / 'lance'}"
  store = create_store(
    location,
    num_bits=index.num_bits,
    about=index.about,
    columns={"year": "integer", "label": "text"},
  )
  names = list(index.names)
  metadata = {
    "year": [2010 + row for row in range(len(names))],
    "label": [None if row == 0 else ("cat", "dog")[row % 2] for row in range(len(names))],
  }
  store.upsert(names, index.codes, metadata)
  store.close()
  return location, index


@pytest.fixture
def client(serve, table):
  return serve(StoreTable(table[0], batch_sizes=(1, 4)))


def test_answers_are_those_of_the_index(client, table, rows_of):
  _, index = table
  assert client.get("/v1/collection").json()["columns"] == {"year": "integer", "label": "text"}
  code = np.array([0x12, 0x30], np.uint8)
  answer = client.post(f"{POST}?k=9", json={"hex": code.tobytes().hex()}).json()
  wanted = [(d, index.names[row], 2010 + row) for d, row in rows_of(index.codes, code)]
  found = [(n["distance"], n["name"], n["metadata"]["year"]) for n in answer["neighbours"]]
  assert found == wanted and answer["complete"] and answer["items"] == 9
  names = [item["name"] for item in client.get("/v1/items?offset=3&limit=4").json()["items"]]
  assert names == list(index.names[3:7])
  for part in ("PNG", "group 1", "none"):
    asked = {"contains": part, "offset": 1, "limit": 3}
    found = client.get("/v1/items", params=asked).json()
    wanted = [name for name in index.names if part.lower() in name.lower()]
    assert [item["name"] for item in found["items"]] == wanted[1:4]
    assert found["total"] == len(wanted)
  item = client.get("/v1/item", params={"name": index.names[0]}).json()
  assert item["code"] == index.codes[0].tobytes().hex()
  assert item["metadata"] == {"year": 2010, "label": None}
  assert client.get("/v1/item?name=none").status_code == 404


def test_an_order_by_outputs_is_refused(client, table):
  _, index = table
  assert not client.get("/v1/collection").json()["takes"]["asymmetric"]
  for answer in (
    client.get(POST, params={"name": index.names[0], "asymmetric": "true"}),
    client.post(f"{POST}?asymmetric=true", json={"hex": "0000"}),
  ):
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "no_outputs"
    assert "udh-jax copy" in answer.json()["error"]["message"]


def test_conditions_select(client, table):
  _, index = table
  names = list(index.names)

  def ask(*where):
    answer = client.post(POST, params={"k": 9, "where": where}, json={"hex": "0000"})
    assert answer.status_code == 200, answer.text
    return {neighbour["name"] for neighbour in answer.json()["neighbours"]}

  assert ask("year>=2014") == set(names[4:])
  assert ask("year>=2014", "label=dog") == set(names[5::2])
  assert ask("label=") == {names[0]}
  for bad in ("year>=soon", "colour=red", "year"):
    refused = client.post(POST, params={"where": bad}, json={"hex": "0000"})
    assert refused.status_code == 400 and refused.json()["error"]["code"] == "bad_request"


def test_what_a_condition_leaves_is_complete_only_if_all_is_shown(client, table):
  _, index = table
  names = list(index.names)  # dogs are at 1, 3, 5, 7; cats at 2, 4, 6, 8

  def ask(name, k, condition, **more):
    arguments = {"name": name, "k": k, "where": condition, **more}
    answer = client.get(POST, params=arguments).json()
    return len(answer["neighbours"]), answer["complete"]

  for radius in ({}, {"radius": 12}):
    assert ask(names[1], 3, "label=cat", **radius) == (3, False)  # it is not one of them itself
    assert ask(names[1], 4, "label=cat", **radius) == (4, True)
    assert ask(names[2], 2, "label=cat", **radius) == (2, False)
    assert ask(names[2], 3, "label=cat", **radius) == (3, True)


def test_an_approximate_search_does_not_claim_all_within_a_radius(serve, tmp_path):
  location = f"lancedb:{tmp_path / 'large'}"
  codes = np.arange(2000, dtype=np.uint16)[:, None].view(np.uint8)
  with create_store(location, num_bits=16) as store:
    store.upsert([f"{i}.png" for i in range(2000)], codes)
    store.build_index()
  exact, approximate = (
    serve(StoreTable(location, batch_sizes=(1, 4), approximate=choice)) for choice in (False, True)
  )

  def complete(client, arguments):
    return client.post(f"{POST}?{arguments}", json={"hex": "0000"}).json()["complete"]

  for arguments, of_exact, of_approximate in (
    ("k=30&radius=1", True, False),  # the graph's 31 nearest: one within the radius may be missing
    ("k=5&radius=12", False, False),
    ("k=1000&radius=1", True, True),  # more than the graph gathers: searched exactly
  ):
    assert complete(exact, arguments) == of_exact
    assert complete(approximate, arguments) == of_approximate


def test_pictures_come_from_the_folder_that_the_store_names(client, table, pictures):
  _, index = table
  for kind in ("picture", "thumbnail"):
    assert client.get(f"/v1/{kind}", params={"name": index.names[0]}).status_code == 200
    assert client.get(f"/v1/{kind}", params={"name": "../mine.index"}).status_code == 404


def test_what_is_written_later_is_found(client, table, encoders):
  location, index = table
  store = open_store(location)
  store.delete([index.names[0]])
  store.close()
  assert client.get("/v1/item", params={"name": index.names[0]}).status_code == 404


def test_a_store_that_is_lost_is_said(client, table, tmp_path):
  shutil.rmtree(tmp_path / "lance")
  answer = client.post(POST, json={"hex": "0000"})
  assert answer.status_code == 503 and answer.json()["error"]["code"] == "store"
  assert "\n" not in answer.json()["error"]["message"]


def test_a_store_of_another_encoder_or_none_at_all_is_refused(table, encoders, tmp_path):
  location, _ = table
  _, (_, other) = encoders
  with pytest.raises(InputError, match="not the one that made"):
    StoreTable(location, encoder=str(other)).load()
  with pytest.raises(InputError):
    StoreTable(f"lancedb:{tmp_path / 'none'}").load()


@pytest.mark.parametrize("made", [None, "resnet", ["abc"], {}])
def test_a_store_that_tells_no_encoder_has_no_digest(made):
  about = {} if made is None else {"encoder": made}
  store = types.SimpleNamespace(about=about, location="x", num_bits=8, columns={}, count=lambda: 0)
  assert StoreCollection(store, folder=None).digest is None


class Away:
  """A store that cannot be reached, and takes its time to say so."""

  location, num_bits, about, columns = "away", 16, {}, {}

  def __init__(self):
    self.asked, self.there = 0, True

  def count(self):
    return 7

  def get(self, names):
    self.asked += 1
    if not self.there:
      time.sleep(0.02)
      raise StoreError("the store is away")
    return Rows(list(names), np.zeros((len(names), 2), np.uint8), {})


def test_a_store_that_is_away_is_not_waited_for_by_each(monkeypatch):
  monkeypatch.setattr(store_collection, "_PATIENCE", 0.01)
  store = Away()
  served = StoreCollection(store, folder=None)
  assert served.last_count == 7 and served.item("a").name == "a"
  store.there = False
  for _ in range(5):
    with pytest.raises(Problem, match="the store is away") as caught:
      served.item("a")
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
  assert store.asked == 2 and served.last_count == 7
  later = time.monotonic() + 60
  monkeypatch.setattr(store_collection.time, "monotonic", lambda: later)
  store.there = True
  assert served.item("a").name == "a"


def test_what_fails_at_once_is_asked_again():
  store = Away()
  served = StoreCollection(store, folder=None)
  store.there = False
  for _ in range(3):
    with pytest.raises(Problem, match="away"):
      served.item("a")
  assert store.asked == 3
