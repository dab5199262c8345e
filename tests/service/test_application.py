"""The application: what it answers, checked against counting bits and against its description."""

import base64
import concurrent.futures
import io
import os
import shutil
import threading
import tracemalloc

import anyio
import jax.monitoring
import numpy as np
import pytest
from PIL import Image
from starlette.routing import Route

from udh_jax.data.pictures import decode_picture
from udh_jax.data.words import cut
from udh_jax.encoders.folder import encode_folder
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service import application
from udh_jax.service.application import Limits
from udh_jax.service.interface import OPERATIONS
from udh_jax.service.problems import Problem

POST = "/v1/neighbours"
NAMES = [f"group {i % 2}/{i}.{('png', 'jpg')[i % 2]}" for i in range(9)]


def problem_of(response, status):
  assert response.status_code == status, response.text
  error = response.json()["error"]
  assert "\n" not in error["message"]
  return error["code"]


def pairs(response):
  assert response.status_code == 200, response.text
  return [(item["distance"], item["name"]) for item in response.json()["neighbours"]]


@pytest.fixture
def client(serve, index_path):
  return serve(index_path)


@pytest.fixture
def expected(index_path, rows_of):
  """Neighbours of a code by counting bits: pairs of distance and name."""
  index = HammingIndex.load(index_path)
  return lambda code: [(d, index.names[row]) for d, row in rows_of(index.codes, code)]


@pytest.fixture
def query(encoders, rng):
  """A picture that the collection lacks: its file and its code."""
  data = io.BytesIO()
  Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8)).resize((50, 70)).save(data, "PNG")
  encoder, _ = encoders[0]
  return data.getvalue(), encoder(decode_picture(data.getvalue(), 8)[None])[0]


# Queries.


def test_a_picture_is_answered_raw_and_as_a_form(client, query, expected):
  data, code = query
  wanted = expected(code)
  for kind in ("image/png", "application/octet-stream"):
    answer = client.post(f"{POST}?k=4", content=data, headers={"Content-Type": kind})
    assert pairs(answer) == wanted[:4]
    assert answer.json()["query"] == {"kind": "picture", "code": code.tobytes().hex()}
  form = client.post(f"{POST}?k=9", files={"picture": ("x.png", data, "image/png")})
  assert pairs(form) == wanted
  assert form.json()["complete"] and not answer.json()["complete"]
  plain = client.build_request("POST", f"{POST}?k=1", content=data)
  assert "content-type" not in plain.headers
  assert pairs(client.send(plain)) == wanted[:1]


def test_a_code_is_answered_in_hex_and_base64(client, query, expected):
  _, code = query
  data = code.tobytes()
  for body in ({"hex": data.hex()}, {"base64": base64.b64encode(data).decode()}):
    answer = client.post(f"{POST}?k=5", json=body)
    assert pairs(answer) == expected(code)[:5]
    assert answer.json()["query"] == {"kind": "code", "code": data.hex()}


def test_an_item_is_answered_without_itself(client, index_path, expected):
  index = HammingIndex.load(index_path)
  for row, name in enumerate(index.names):
    wanted = [pair for pair in expected(index.codes[row]) if pair[1] != name]
    answer = client.get(POST, params={"name": name, "k": 3})
    assert pairs(answer) == wanted[:3]
    assert answer.json()["query"]["name"] == name
    assert pairs(client.post(f"{POST}?k=8", json={"name": name})) == wanted
  assert client.get(POST, params={"name": name, "k": 8}).json()["complete"]
  assert not client.get(POST, params={"name": name, "k": 7}).json()["complete"]


def test_a_text_is_answered(serve, pair_encoder, pictures, tmp_path, rows_of):
  encoder, source = pair_encoder
  index = encode_folder(encoder, pictures, tmp_path / "pairs.index", source=str(source))
  client = serve(tmp_path / "pairs.index")
  assert client.get("/v1/collection").json()["takes"] == {
    "pictures": True,
    "texts": True,
    "asymmetric": True,
  }
  for text, words, unknown in (
    ("dog", ["dog"], []),
    ("beach unicorn dog", ["beach", "dog"], ["unicorn"]),
    ("new york,beach", ["new york", "beach"], []),
  ):
    answer = client.post(f"{POST}?k=5", json={"text": text})
    (code,) = encoder.texts([words])
    assert pairs(answer) == [(d, index.names[row]) for d, row in rows_of(index.codes, code)[:5]]
    assert answer.json()["query"]["words"] == words
    assert answer.json()["query"]["unknown_words"] == unknown
  assert problem_of(client.post(POST, json={"text": "unicorn"}), 422) == "unknown_words"
  assert problem_of(client.post(POST, json={"text": " , "}), 422) == "unknown_words"
  assert client.get("/v1/words?start=be").json() == {"words": ["beach", "bear"]}
  assert client.get("/v1/words?limit=1").json() == {"words": ["beach"]}


@pytest.mark.parametrize("tokenizer", ["words", "icu"])
def test_half_a_character_is_a_word_that_nobody_knows(
  serve, pair_encoder, pictures, tmp_path, monkeypatch, tokenizer
):
  encoder, source = pair_encoder
  encode_folder(encoder, pictures, tmp_path / "pairs.index", source=str(source))
  client = serve(tmp_path / "pairs.index")
  if tokenizer == "icu":
    pytest.importorskip("icu4py")
    monkeypatch.setattr(client.following.now.coder, "_words_of", cut)

  def ask(text):
    headers = {"Content-Type": "application/json"}
    return client.post(POST, content=b'{"text": "%s"}' % text, headers=headers)

  for half in (b"\\ud800", b"\\udcff", b"unicorn \\ud83d"):
    assert problem_of(ask(half), 422) == "unknown_words"
  beside = ask(b"dog \\ud83d")
  assert beside.status_code == 200 and beside.json()["query"]["words"] == ["dog"]


def test_a_text_is_refused_where_the_encoder_takes_none(client):
  assert problem_of(client.post(POST, json={"text": "dog"}), 400) == "no_texts"
  assert client.get("/v1/words").json() == {"words": []}


def test_the_radius_bounds_the_answer(client, query, expected):
  _, code = query
  for radius in range(13):
    wanted = [pair for pair in expected(code) if pair[0] <= radius]
    answer = client.post(f"{POST}?radius={radius}", json={"hex": code.tobytes().hex()})
    assert pairs(answer) == wanted and answer.json()["complete"]
  answer = client.post(f"{POST}?radius=12&k=3", json={"hex": code.tobytes().hex()})
  assert pairs(answer) == expected(code)[:3] and not answer.json()["complete"]


def test_an_index_that_names_no_encoder_answers_codes_and_items(serve, tmp_path, rows_of):
  codes = np.arange(20, dtype=np.uint8)[:, None]
  HammingIndex(codes, [f"{i}.png" for i in range(20)]).save(tmp_path / "bare.index")
  client = serve(tmp_path / "bare.index")
  assert pairs(client.post(f"{POST}?k=2", json={"hex": "05"})) == [(0, "5.png"), (1, "1.png")]
  takes = client.get("/v1/collection").json()
  assert takes["encoder"] is None and not any(takes["takes"].values())
  sent = client.post(POST, content=b"x", headers={"Content-Type": "image/png"})
  assert problem_of(sent, 400) == "no_pictures"
  assert problem_of(client.post(POST, json={"text": "x"}), 400) == "no_texts"
  gone = client.get("/v1/thumbnail", params={"name": "5.png"})
  assert problem_of(gone, 404) == "picture_gone" and "--images" in gone.text


def test_an_empty_index_is_served(serve, tmp_path):
  HammingIndex(np.zeros((0, 2), np.uint8), []).save(tmp_path / "empty.index")
  client = serve(tmp_path / "empty.index")
  assert pairs(client.post(POST, json={"hex": "0102"})) == []
  assert client.get("/v1/items").json()["items"] == []


# By outputs.


@pytest.fixture
def by_outputs(index_path):
  """Neighbours of outputs and a code by sums in float64: pairs of distance and name."""
  index = HammingIndex.load(index_path)
  bits = np.unpackbits(index.codes, axis=1)[:, : index.num_bits].astype(int)

  def find(outputs, code, radius=99):
    similarities = (2 * bits - 1) @ outputs.astype(np.float64)
    distances = np.unpackbits(index.codes ^ code, axis=1).sum(axis=1)
    order = sorted(range(len(index)), key=lambda row: (-round(similarities[row], 4), row))
    return [(int(distances[row]), index.names[row]) for row in order if distances[row] <= radius]

  return find


def test_queries_are_answered_in_the_order_of_their_outputs(
  client, query, encoders, pictures, index_path, by_outputs, expected
):
  encoder, _ = encoders[0]
  data, code = query
  (outputs,) = encoder.outputs(decode_picture(data, 8)[None])
  wanted = by_outputs(outputs, code)
  assert wanted != expected(code)  # else nothing is shown
  headers = {"Content-Type": "image/png"}
  answer = client.post(f"{POST}?k=4&asymmetric=true", content=data, headers=headers)
  assert pairs(answer) == wanted[:4] and not answer.json()["complete"]
  said = answer.json()["query"]
  assert said["kind"] == "picture" and said["code"] == code.tobytes().hex()
  np.testing.assert_allclose(
    np.frombuffer(base64.b64decode(said["outputs"]), "<f4"), outputs, rtol=1e-5, atol=1e-5
  )
  again = client.post(f"{POST}?k=9&asymmetric=true", json={"outputs": said["outputs"]})
  assert pairs(again) == wanted and again.json()["complete"]
  assert again.json()["query"] == {"kind": "code", **{k: said[k] for k in ("code", "outputs")}}
  plain = client.post(f"{POST}?k=9&asymmetric=false", json={"outputs": said["outputs"]})
  assert pairs(plain) == expected(code) and "outputs" not in plain.json()["query"]
  for radius in (0, 4, 6, 12):
    near = client.post(f"{POST}?radius={radius}&asymmetric=true", content=data, headers=headers)
    assert pairs(near) == by_outputs(outputs, code, radius) and near.json()["complete"]
  near = client.post(f"{POST}?radius=6&k=1&asymmetric=true", content=data, headers=headers)
  assert pairs(near) == by_outputs(outputs, code, 6)[:1]
  index = HammingIndex.load(index_path)
  for row, name in enumerate(index.names):
    picture = decode_picture((pictures / name).read_bytes(), 8)
    (outputs,) = encoder.outputs(picture[None])
    wanted = [pair for pair in by_outputs(outputs, index.codes[row]) if pair[1] != name]
    answer = client.get(POST, params={"name": name, "k": 5, "asymmetric": "true"})
    assert pairs(answer) == wanted[:5]


def test_an_item_is_answered_however_large_its_file(serve, index_path):
  client = serve(index_path, limits=Limits(upload_bytes=10, held_bytes=10))
  answer = client.get(POST, params={"name": NAMES[1], "k": 3, "asymmetric": "true"})
  assert len(pairs(answer)) == 3


def test_a_text_is_answered_in_the_order_of_its_outputs(serve, pair_encoder, pictures, tmp_path):
  encoder, source = pair_encoder
  index = encode_folder(encoder, pictures, tmp_path / "pairs.index", source=str(source))
  client = serve(tmp_path / "pairs.index")
  answer = client.post(f"{POST}?k=9&asymmetric=true", json={"text": "dog"})
  _, rows = index.asymmetric_search(encoder.text_outputs([["dog"]]), 9)
  assert [name for _, name in pairs(answer)] == [index.names[row] for row in rows[0]]


def test_outputs_are_refused_where_there_are_none(client, serve, pictures, tmp_path, index_path):
  assert client.get("/v1/collection").json()["takes"]["asymmetric"]
  asked = f"{POST}?asymmetric=true"
  assert problem_of(client.post(asked, json={"hex": "0000"}), 400) == "no_outputs"
  for bad in (b"", b"\0" * 47, np.full(12, np.nan, "<f4").tobytes()):
    sent = {"outputs": base64.b64encode(bad).decode()}
    assert problem_of(client.post(asked, json=sent), 422) == "bad_code"
  assert problem_of(client.post(asked, json={"outputs": "?"}), 422) == "bad_code"
  (pictures / NAMES[0]).unlink()
  gone = {"name": NAMES[0], "asymmetric": "true"}
  assert problem_of(client.get(POST, params=gone), 404) == "picture_gone"
  data = (pictures / NAMES[2]).read_bytes()
  (pictures / NAMES[2]).write_bytes(data[:60])
  damaged = {"name": NAMES[2], "asymmetric": "true"}
  assert problem_of(client.get(POST, params=damaged), 422) == "unreadable_picture"
  codes = np.arange(20, dtype=np.uint8)[:, None]
  HammingIndex(codes, [f"{i}.png" for i in range(20)]).save(tmp_path / "bare.index")
  bare = serve(tmp_path / "bare.index")
  assert not bare.get("/v1/collection").json()["takes"]["asymmetric"]
  asked = {"name": "1.png", "asymmetric": "true"}
  assert problem_of(bare.get(POST, params=asked), 400) == "no_pictures"
  HammingIndex(np.zeros((0, 2), np.uint8), []).save(tmp_path / "empty.index")
  sent = {"outputs": base64.b64encode(np.ones(16, "<f4").tobytes()).decode()}
  assert pairs(serve(tmp_path / "empty.index").post(f"{POST}?asymmetric=true", json=sent)) == []


# Bad input.


@pytest.mark.parametrize(
  "arguments, code",
  [
    ("k=0", "bad_argument"), ("k=1001", "bad_argument"), ("k=x", "bad_argument"),
    ("k=1.5", "bad_argument"), ("k=", "bad_argument"), ("k=1&k=2", "bad_argument"),
    ("k=%D9%A3", "bad_argument"), (f"k={'9' * 5000}", "bad_argument"),
    ("radius=-1", "bad_argument"), ("radius=1e3", "bad_argument"), ("engine=jax", "bad_argument"),
    ("asymmetric=1", "bad_argument"), ("asymmetric=true&asymmetric=true", "bad_argument"),
    ("where=year>1", "bad_request"), ("&".join(["where=a=1"] * 21), "bad_argument"),
    ("&".join(["k=1"] * 200), "bad_request"),
  ],
)  # fmt: skip
def test_bad_arguments_are_refused(client, arguments, code):
  assert problem_of(client.post(f"{POST}?{arguments}", json={"hex": "0000"}), 400) == code


@pytest.mark.parametrize(
  "body, status, code",
  [
    (b"{", 400, "bad_json"), (b"[]", 400, "bad_json"), (b"\xff\xfe", 400, "bad_json"),
    (b"[" * 50_000, 400, "bad_json"), (b"{}", 400, "bad_json"), (b'{"hex": 5}', 400, "bad_json"),
    (b'{"hex": "00", "k": 5}', 400, "bad_json"), (b'{"image": "x"}', 400, "bad_json"),
    (b'{"hex": "xyz"}', 422, "bad_code"), (b'{"hex": "00"}', 422, "bad_code"),
    (b'{"hex": "000001"}', 422, "bad_code"), (b'{"hex": "0001"}', 422, "bad_code"),
    (b'{"base64": "!"}', 422, "bad_code"), (b'{"base64": "AAAA"}', 422, "bad_code"),
    (b'{"name": "none.png"}', 404, "no_such_item"), (b'{"name": "\\ud800"}', 404, "no_such_item"),
    (b'"' + b"x" * 70_000 + b'"', 413, "too_large"),
  ],
)  # fmt: skip
def test_bad_json_is_refused(client, body, status, code):
  answer = client.post(POST, content=body, headers={"Content-Type": "application/json"})
  assert problem_of(answer, status) == code


def test_bad_pictures_are_refused(client):
  def send(data, kind="image/png"):
    return client.post(POST, content=data, headers={"Content-Type": kind})

  assert problem_of(send(b"no picture"), 422) == "unreadable_picture"
  assert problem_of(send(b""), 422) == "unreadable_picture"
  assert problem_of(send(b"x", "application/x-www-form-urlencoded"), 415) == "wrong_kind"
  assert problem_of(send(b"x", "text/plain"), 415) == "wrong_kind"


def test_bad_forms_are_refused(client):
  for files in (
    {"image": b"x"},
    [("picture", b"x"), ("picture", b"y")],
    [("picture", b"x"), ("other", b"y")],
  ):
    assert problem_of(client.post(POST, files=files), 400) == "bad_form"
  for kind, body in (
    ("multipart/form-data", b"x"),
    ("multipart/form-data; boundary=a", b"--a\r\nbroken"),
    ("multipart/form-data; boundary=a", b""),
  ):
    answer = client.post(POST, content=body, headers={"Content-Type": kind})
    assert problem_of(answer, 400) == "bad_form"


def test_large_uploads_are_refused(serve, index_path, query):
  client = serve(index_path, limits=Limits(upload_bytes=20_000, pixels=5000))
  data, _ = query
  headers = {"Content-Type": "image/png"}
  assert client.post(POST, content=data, headers=headers).status_code == 200
  for size in (20_001, 10**6):
    assert problem_of(client.post(POST, content=bytes(size), headers=headers), 413) == "too_large"
  chunked = client.post(POST, content=iter([bytes(15_000)] * 2), headers=headers)
  assert problem_of(chunked, 413) == "too_large"
  form = client.post(POST, files={"picture": bytes(30_000)})
  assert problem_of(form, 413) == "too_large"
  larger = io.BytesIO()
  Image.new("RGB", (51, 100)).save(larger, "PNG")
  answer = client.post(POST, content=larger.getvalue(), headers=headers)
  assert problem_of(answer, 413) == "too_many_pixels"
  assert client.service._room.taken == 0


class Sender:
  """A client that sends its body in parts, and then waits for ever unless it is ended."""

  def __init__(self, client, parts, *, ends=False, **headers):
    self._parts, self._ends = iter(parts), ends
    self.waits, self.status = threading.Event(), None
    named = {"host": "localhost", "content-type": "image/png"} | headers
    scope = {
      "type": "http", "method": "POST", "path": POST, "raw_path": POST.encode(), "root_path": "",
      "query_string": b"", "scheme": "http", "http_version": "1.1", "server": ("localhost", 80),
      "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }  # fmt: skip
    # In the loop in which the service lives, without what a client of a library adds.
    self.task = client.portal.start_task_soon(client.app, scope, self._receive, self._send)

  async def _receive(self):
    part = next(self._parts, None)
    if part is None and not self._ends:
      self.waits.set()
      await anyio.sleep_forever()
    return {"type": "http.request", "body": part or b"", "more_body": part is not None}

  async def _send(self, message):
    self.status = message.get("status", self.status)


def test_clients_that_announce_pictures_and_send_none_are_in_nobodys_way(serve, index_path, query):
  client = serve(index_path, limits=Limits(upload_bytes=20_000, held_bytes=60_000))
  senders = [Sender(client, [], **{"content-length": "20000"}) for _ in range(6)]
  assert all(sender.waits.wait(30) for sender in senders)
  data, _ = query
  answer = client.post(POST, content=data, headers={"Content-Type": "image/png"})
  for sender in senders:
    sender.task.cancel()
  assert answer.status_code == 200, answer.text


def test_what_came_is_counted_whatever_length_was_declared(serve, index_path):
  client = serve(index_path, limits=Limits(upload_bytes=20_000, held_bytes=30_000))
  headers = {"content-length": "1", "transfer-encoding": "chunked"}
  first = Sender(client, [bytes(10_000)] * 2, **headers)
  assert first.waits.wait(30)
  assert client.service._room.taken == 20_000
  second = Sender(client, [bytes(5_000)] * 3, ends=True, **headers)
  second.task.result(30)
  assert second.status == 503
  first.task.cancel()


def test_a_form_is_not_held_beside_its_picture(client, monkeypatch):
  size, held = 2**23, []

  def decode(data, *_):
    assert len(data) == size
    held.append(tracemalloc.get_traced_memory()[0] - before)
    raise Problem("Seen.")

  monkeypatch.setattr(application, "decode_upload", decode)
  name = b'Content-Disposition: form-data; name="picture"; filename="x.png"'

  def parts():
    yield b"--a\r\n" + name + b"\r\n\r\n"
    for _ in range(8):
      yield bytes(size // 8)
    yield b"\r\n--a--\r\n"

  tracemalloc.start()
  try:
    before = tracemalloc.get_traced_memory()[0]
    kind = {"content-type": "multipart/form-data; boundary=a"}
    sender = Sender(client, parts(), ends=True, **kind)
    sender.task.result(60)
  finally:
    tracemalloc.stop()
  assert sender.status == 400 and held and held[0] < 1.5 * size


def test_a_file_is_not_held_while_its_picture_waits_for_the_encoder(client, query, monkeypatch):
  size, held, encode = 2**23, [], client.service._pictures

  async def measured(item):
    for _ in range(100):  # the thread that decoded it lets go of it after it has answered
      held.append(tracemalloc.get_traced_memory()[0] - before)
      if held[-1] < size / 4:
        break
      await anyio.sleep(0.01)
    return await encode(item)

  def parts():
    yield query[0]
    for _ in range(8):
      yield bytes(size // 8)

  monkeypatch.setattr(client.service, "_pictures", measured)
  tracemalloc.start()
  try:
    before = tracemalloc.get_traced_memory()[0]
    sender = Sender(client, parts(), ends=True)
    sender.task.result(60)
  finally:
    tracemalloc.stop()
  assert sender.status == 200 and held[-1] < size / 4


def test_unknown_addresses_and_methods_are_said(client):
  assert problem_of(client.get("/v2/items"), 404) == "no_such_address"
  assert problem_of(client.get("/page/../../secret"), 404) == "no_such_address"
  assert problem_of(client.delete("/v1/items"), 405) == "no_such_method"


def test_a_defect_is_an_answer_and_a_line_in_the_log(client, monkeypatch, caplog):
  monkeypatch.setattr(client.service, "_searches", None)
  answer = client.get("/v1/items")
  assert problem_of(answer, 500) == "defect"
  mark = answer.json()["error"]["message"].rstrip(".").rsplit(" ", 1)[1]
  assert any(mark in record.message and record.exc_info for record in caplog.records)


# Items and pictures.


def test_the_collection_is_listed_in_pages(client):
  first = client.get("/v1/items?limit=4").json()
  assert [item["name"] for item in first["items"]] == sorted(NAMES)[:4] and first["total"] == 9
  rest = client.get("/v1/items?limit=200&offset=4").json()
  assert [item["name"] for item in rest["items"]] == sorted(NAMES)[4:]
  assert client.get("/v1/items?offset=9").json()["items"] == []
  for part, names in (
    ("JPG", [n for n in sorted(NAMES) if n.endswith("jpg")]),
    ("p 0/", [n for n in sorted(NAMES) if "p 0/" in n]),
    ("none", []),
    ("", sorted(NAMES)),
  ):
    found = client.get("/v1/items", params={"contains": part, "offset": 1, "limit": 2}).json()
    assert [item["name"] for item in found["items"]] == names[1:3] and found["total"] == len(names)
  for bad in ("limit=0", "limit=201", "offset=-1", f"contains={'x' * 101}"):
    assert problem_of(client.get(f"/v1/items?{bad}"), 400) == "bad_argument"


def test_links_lead_to_the_item_and_its_pictures(client, pictures, index_path):
  index = HammingIndex.load(index_path)
  for row, links in enumerate(client.get("/v1/items").json()["items"]):
    item = client.get(links["item"]).json()
    assert item["name"] == links["name"]
    assert item["code"] == index.codes[row].tobytes().hex()
    picture = client.get(links["picture"])
    assert picture.content == (pictures / links["name"]).read_bytes()
    assert picture.headers["content-type"] == ("image/jpeg" if row >= 5 else "image/png")
    assert client.get(links["thumbnail"]).headers["content-type"] == "image/webp"
    for address in (links["picture"], links["thumbnail"]):
      tag = client.get(address).headers["etag"]
      again = client.get(address, headers={"If-None-Match": tag})
      assert again.status_code == 304 and not again.content


ODD = [
  b"a b&c=d#e?f%25.png",
  "grüß/☃.png".encode(),
  b"x\xff\xfe.png",
  b"new\nline.png",
  b'<b>"quoted".png',
  b"a+b;c.png",
  "\u202egnp.png".encode(),
]


def test_names_of_any_bytes_work(serve, tmp_path, encoders):
  folder = os.fsencode(tmp_path / "odd")
  picture = Image.effect_noise((20, 20), 90)
  for i, name in enumerate(ODD):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    picture.rotate(10 * i).save(os.fsdecode(path), "PNG")
  encoder, source = encoders[0]
  encode_folder(encoder, tmp_path / "odd", tmp_path / "odd.index", source=str(source))
  client = serve(tmp_path / "odd.index")
  items = client.get("/v1/items").json()["items"]
  assert {os.fsencode(item["name"]) for item in items} == set(ODD)
  for item in items:
    assert client.get(item["item"]).json()["name"] == item["name"]
    file = os.path.join(folder, os.fsencode(item["name"]))
    with open(file, "rb") as opened:
      assert client.get(item["picture"]).content == opened.read()
    assert client.get(item["thumbnail"]).status_code == 200
    query = item["item"].partition("?")[2]
    assert len(pairs(client.get(f"{POST}?{query}"))) == len(ODD) - 1


@pytest.mark.parametrize("kind", ["picture", "thumbnail"])
def test_only_files_of_the_index_are_served(client, pictures, tmp_path, kind):
  secret = tmp_path / "secret.png"
  Image.new("RGB", (20, 20)).save(secret)
  Image.new("RGB", (20, 20)).save(pictures / "later.png")

  def get(name):
    return client.get(f"/v1/{kind}", params={"name": name})

  for name in ("later.png", "../secret.png", str(secret), "group 0/../group 0/0.png", "", "."):
    assert problem_of(get(name), 404) == "no_such_item"
  assert get("group 0/0.png").status_code == 200
  (pictures / "group 0/0.png").unlink()
  assert problem_of(get("group 0/0.png"), 404) == "picture_gone"
  (pictures / "group 0/0.png").symlink_to(secret)
  assert problem_of(get("group 0/0.png"), 404) == "picture_gone"
  (pictures / "group 0/0.png").unlink()
  (pictures / "group 0/0.png").write_text("<script>")
  assert problem_of(get("group 0/0.png"), 404) == "picture_gone"


def test_an_index_with_names_that_leave_the_folder_serves_none_of_them(serve, tmp_path, pictures):
  Image.new("RGB", (20, 20)).save(tmp_path / "secret.png")
  names = ["../secret.png", str(tmp_path / "secret.png"), "group 0/../../secret.png"]
  index = HammingIndex(np.zeros((3, 2), np.uint8), names, about={"folder": str(pictures)})
  index.save(tmp_path / "forged.index")
  for follow_links in (False, True):
    client = serve(tmp_path / "forged.index", follow_links=follow_links)
    for name in names:
      for kind in ("picture", "thumbnail"):
        answer = client.get(f"/v1/{kind}", params={"name": name})
        assert problem_of(answer, 404) == "picture_gone"


def test_links_are_followed_where_that_was_asked_for(serve, index_path, pictures, tmp_path):
  real = tmp_path / "real.png"
  (pictures / "group 0/0.png").rename(real)
  (pictures / "group 0/0.png").symlink_to(real)
  client = serve(index_path, follow_links=True)
  answer = client.get("/v1/picture", params={"name": "group 0/0.png"})
  assert answer.content == real.read_bytes()


def test_a_folder_that_vanishes_leaves_the_answers(client, pictures):
  shutil.rmtree(pictures)
  name = "group 0/0.png"
  assert len(pairs(client.get(POST, params={"name": name}))) == 8
  gone = client.get("/v1/picture", params={"name": name})
  assert problem_of(gone, 404) == "picture_gone" and "folder of the pictures is gone" in gone.text


# Access.


def test_without_the_token_nothing_is_told(serve, index_path, query):
  client = serve(index_path, token="open-sesame")
  data, _ = query
  for operation in OPERATIONS:
    answer = client.request(operation.method, operation.path)
    assert (answer.status_code == 401) == (not operation.open), operation.path
  assert client.get("/healthz").json() == {"status": "ok"}
  assert client.get("/").status_code == 200
  for wrong in ("Bearer wrong", "Bearer", "Basic open-sesame", "Bearer \u00e9", "open-sesame"):
    answer = client.get("/v1/items", headers={"Authorization": wrong.encode()})
    assert problem_of(answer, 401) == "no_token"
    assert answer.headers["www-authenticate"].startswith("Bearer")
  known = {"Authorization": "Bearer open-sesame"}
  assert client.get("/v1/items", headers=known).status_code == 200
  assert client.get("/healthz", headers=known).json()["items"] == 9
  headers = known | {"Content-Type": "image/png"}
  assert client.post(POST, content=data, headers=headers).status_code == 200


def test_a_browser_is_known_by_a_cookie_that_does_not_hold_the_token(serve, index_path):
  client = serve(index_path, token="open-sesame")
  assert problem_of(client.post("/v1/session", json={"token": "wrong"}), 401) == "wrong_token"
  assert not client.cookies
  for bad in ({}, {"token": 5}, {"token": "x", "more": 1}):
    assert problem_of(client.post("/v1/session", json=bad), 400) == "bad_json"
  answer = client.post("/v1/session", json={"token": "open-sesame"})
  cookie = answer.headers["set-cookie"].lower()
  assert "httponly" in cookie and "samesite=strict" in cookie and "sesame" not in cookie
  assert client.get("/v1/items").status_code == 200
  other = serve(index_path, token="another-token")
  other.cookies = client.cookies
  assert problem_of(other.get("/v1/items"), 401) == "no_token"


def test_names_that_are_not_the_servers_are_refused(serve, index_path):
  client = serve(index_path, hosts=("pictures.example",))
  for host in ("127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "pictures.example:80"):
    assert client.get("/v1/items", headers={"Host": host}).status_code == 200
  for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "[::2]"):
    for path in ("/v1/items", "/healthz", "/v1/picture?name=x"):
      assert problem_of(client.get(path, headers={"Host": host}), 421) == "wrong_host"
    assert client.get("/", headers={"Host": host}).status_code == 421
  assert serve(index_path, hosts=None).get("/v1/items", headers={"Host": "any"}).status_code == 200


def test_pages_of_other_sites_may_not_ask(client):
  for site in ("cross-site", "same-site"):
    answer = client.post(POST, json={"hex": "0000"}, headers={"Sec-Fetch-Site": site})
    assert problem_of(answer, 403) == "other_site"
  answer = client.post(POST, json={"hex": "0000"}, headers={"Sec-Fetch-Site": "same-origin"})
  assert answer.status_code == 200 and "access-control-allow-origin" not in answer.headers


def test_pages_of_other_sites_are_known_without_encryption_too(serve, index_path):
  client = serve(index_path, hosts=("pictures.example",))
  for origin, host, status in (
    ("http://192.168.0.9:8000", "192.168.0.9:8000", 421),  # the name is looked at first
    ("http://evil.example", "localhost:8000", 403),
    ("http://localhost:9000", "localhost:8000", 403),
    ("null", "localhost:8000", 403),
    ("http://localhost:8000", "localhost:8000", 200),
    ("https://pictures.example", "localhost:8000", 200),  # a proxy that gives its own name
  ):
    headers = {"Origin": origin, "Host": host}
    assert client.post(POST, json={"hex": "0000"}, headers=headers).status_code == status


def test_no_address_leads_to_another_server(client):
  answer = client.get("/v1/items/", headers={"Host": "evil.example"}, follow_redirects=False)
  assert problem_of(answer, 404) == "no_such_address"


def test_a_picture_that_is_sent_as_text_is_no_damaged_one(client, query):
  body = b'--a\r\nContent-Disposition: form-data; name="picture"\r\n\r\n' + query[0] + b"\r\n--a--"
  kind = {"content-type": "multipart/form-data; boundary=a"}
  answer = client.post(POST, content=body, headers=kind)
  assert problem_of(answer, 400) == "bad_form"
  assert "picture=@FILE" in answer.json()["error"]["message"]


def test_browsers_are_told_to_be_careful(client):
  page = client.get("/")
  policy = page.headers["content-security-policy"]
  assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
  for path in ("/", "/page.js", "/v1/items", "/v1/picture?name=group%200/0.png", "/nowhere"):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "default-src 'none'" in headers["content-security-policy"]
  for path in ("/", "/page.js", "/page.css", "/icon.svg"):
    text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in text and "https:" not in text and "//cdn" not in text


# The description.


def test_the_description_is_valid_and_names_every_route(client):
  validator = pytest.importorskip("openapi_spec_validator")
  document = client.get("/openapi.json").json()
  validator.validate(document)
  described = {
    (path, method.upper()) for path, item in document["paths"].items() for method in item
  }
  routes = {
    (route.path, method)
    for route in client.app.routes
    if isinstance(route, Route)
    for method in route.methods - {"HEAD"}
  }
  page = {(path, "GET") for path in ("/", "/page.css", "/page.js", "/icon.svg")}
  assert described == routes - page and page < routes
  for path, item in document["paths"].items():
    for method, operation in item.items():
      names = {parameter["name"] for parameter in operation.get("parameters", [])}
      (own,) = [o for o in OPERATIONS if (o.path, o.method.lower()) == (path, method)]
      assert names == {parameter.name for parameter in own.parameters}


def test_the_token_stands_in_the_description(serve, index_path):
  document = serve(index_path, token="open-sesame").get("/openapi.json").json()
  assert document["paths"]["/v1/items"]["get"]["security"] == [{"token": []}]
  assert "security" not in document["paths"]["/healthz"]["get"]


# Together.


def test_pictures_that_arrive_together_are_encoded_together(serve, index_path, query, expected):
  client = serve(index_path, limits=Limits(max_wait=0.2, max_batch=16))
  data, code = query

  def ask(_):
    return pairs(client.post(f"{POST}?k=3", content=data, headers={"Content-Type": "image/png"}))

  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    assert list(pool.map(ask, range(12))) == [expected(code)[:3]] * 12
  text = client.get("/metrics").text
  (count,) = [line for line in text.splitlines() if line.startswith(
    'udh_jax_batch_size_count{kind="pictures"}')]  # fmt: skip
  assert 1 <= float(count.split()[1]) <= 6


def test_nothing_is_compiled_after_the_start(serve, index_path, query):
  client = serve(index_path, limits=Limits(max_wait=0.05))
  data, code = query
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: compiled.append(name) if "compile" in name else None
  )

  def ask(i):
    if i % 3 == 2:
      return client.post(f"{POST}?k={i + 1}", json={"hex": code.tobytes().hex()})
    asked = f"{POST}?k={i + 1}&asymmetric={('false', 'true')[i % 3]}"
    return client.post(asked, content=data, headers={"Content-Type": "image/png"})

  try:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      for size in (1, 2, 3, 5, 8, 16):
        assert all(answer.status_code == 200 for answer in pool.map(ask, range(size)))
  finally:
    jax.monitoring.clear_event_listeners()
  assert not compiled


def test_too_many_at_once_are_told_to_come_again(serve, index_path, query):
  client = serve(index_path, limits=Limits(waiting=0))
  data, _ = query
  answer = client.post(POST, content=data, headers={"Content-Type": "image/png"})
  assert problem_of(answer, 503) == "busy" and answer.headers["retry-after"] == "1"


def test_pictures_that_wait_to_be_decoded_are_counted(serve, index_path, query, monkeypatch):
  client = serve(index_path, limits=Limits(waiting=2))
  data, _ = query
  begun, go_on, decode = threading.Semaphore(0), threading.Event(), application.decode_upload

  def slowly(*arguments):
    begun.release()
    go_on.wait(30)
    return decode(*arguments)

  monkeypatch.setattr(application, "decode_upload", slowly)

  def send(_=None):
    return client.post(POST, content=data, headers={"Content-Type": "image/png"})

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first = [pool.submit(send) for _ in range(2)]
    try:
      assert begun.acquire(timeout=30)
      while client.service._decoding < 2:
        threading.Event().wait(0.005)
      answer = send()
    finally:
      go_on.set()
    assert problem_of(answer, 503) == "busy" and answer.headers["retry-after"] == "1"
    assert [task.result().status_code for task in first] == [200, 200]
  assert client.service._decoding == 0 and send().status_code == 200


def test_figures_tell_what_was_done(client):
  client.get("/v1/items")
  client.get("/v1/item?name=none")
  client.get("/v1/thumbnail", params={"name": "group 0/0.png"})
  text = client.get("/metrics").text
  for line in (
    'udh_jax_requests_total{operation="items",status="200"} 1.0',
    'udh_jax_requests_total{operation="item",status="404"} 1.0',
    'udh_jax_thumbnails_total{source="made"} 1.0',
    'udh_jax_request_seconds_count{operation="items"} 1.0',
    "udh_jax_index_stale 0.0",
  ):
    assert line in text.splitlines(), line


def test_each_answer_is_of_one_version(serve, tmp_path, rows_of):
  """Two indexes in turn, asked all the while: names, codes, counts and state always agree."""
  path = tmp_path / "turning.index"
  versions = {}
  for letter, size in (("a", 40), ("b", 70)):
    codes = np.random.default_rng(size).integers(0, 256, (size, 2), np.uint8)
    index = HammingIndex(codes, [f"{letter}{i}" for i in range(size)])
    index.save(tmp_path / f"{letter}.index")
    versions[letter] = (
      index,
      [(d, index.names[r]) for d, r in rows_of(codes, np.uint8([1, 2]))[:5]],
    )

  def put(letter):
    shutil.copy(tmp_path / f"{letter}.index", tmp_path / "new")
    (tmp_path / "new").replace(path)

  put("a")
  client = serve(path)
  seen, stop = [], threading.Event()

  def ask():
    while not stop.is_set():
      answer = client.post(f"{POST}?k=5", json={"hex": "0102"})
      seen.append((pairs(answer), answer.json()["items"], answer.json()["index"]))

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    tasks = [pool.submit(ask) for _ in range(4)]
    for turn in range(6):
      put("ba"[turn % 2])
      state = client.following._source.state()
      for _ in range(3000):
        if client.following.now.collection.version == state:
          break
        threading.Event().wait(0.005)
      client.post(POST, json={"hex": "0102"})
    stop.set()
    for task in tasks:
      task.result()
  for found, items, _ in seen:
    index, wanted = versions[found[0][1][0]]
    assert found == wanted and items == len(index)
  assert len({state for _, _, state in seen}) >= 3
  assert {found[0][1][0] for found, _, _ in seen} == {"a", "b"}
