"""A server under load: clients send pictures while the index is replaced again and again.

python benchmarks/serve.py --encoder runs/mine/encoder_32bits --images PICTURES

Encodes the folder, starts ``udh-jax serve`` on a free port of this machine and sends it the
pictures from a process of its own: half of the requests hold a picture, the others ask for the
neighbours of an item, for its thumbnail, or by a code. Two indexes, with and without half of the
items, take each other's place all the while. An answer that is no 200, or that mixes two states of
the index, is an error and ends the program with status 1. Talks to 127.0.0.1 alone and stops by
itself.
"""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse

import machine
import numpy as np

LONGEST = 600  # seconds that may be asked for


async def request(reader, writer, method, path, body=b"", kind=None):
  """One request on a connection that stays open; returns the status and the body."""
  head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
  if body:
    head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
  writer.write(head.encode() + b"\r\n" + body)
  await writer.drain()
  head = await reader.readuntil(b"\r\n\r\n")
  length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
  return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


def plan(rng, pictures, names, codes):
  """What a client asks next: kind of request, method, path, body, media type."""
  kind = rng.choice(["picture", "item", "thumbnail", "code"], p=[0.5, 0.2, 0.2, 0.1])
  if kind == "picture":
    data = pictures[rng.integers(len(pictures))]
    return kind, "POST", "/v1/neighbours?k=10", data, "application/octet-stream"
  if kind == "code":
    body = json.dumps({"hex": codes[rng.integers(len(codes))].tobytes().hex()}).encode()
    return kind, "POST", "/v1/neighbours?k=10", body, "application/json"
  name = urllib.parse.quote(names[rng.integers(len(names))], safe="", errors="surrogateescape")
  path = "/v1/thumbnail" if kind == "thumbnail" else "/v1/neighbours"
  return kind, "GET", f"{path}?name={name}", b"", None


class Load:
  """Clients on one server."""

  def __init__(self, port, pictures, index, half):
    self.port, self.pictures = port, pictures
    # Items that both indexes hold can be asked for at any moment.
    self.names, self.codes = [str(name) for name in half.names], half.codes
    self.sizes = {len(index), len(half)}
    self.kept = frozenset(self.names)
    self.times = collections.defaultdict(list)
    self.errors = []
    self.states = collections.Counter()

  def check(self, kind, status, body):
    """Adds to the errors what is wrong with an answer."""
    if status != 200:
      self.errors.append(f"{kind}: status {status}: {body[:200]!r}")
    elif kind != "thumbnail":
      answer = json.loads(body)
      self.states[answer["index"]] += 1
      found = [item["name"] for item in answer["neighbours"]]
      whole = answer["items"] == max(self.sizes)
      if len(found) != min(10, answer["items"] - (kind == "item")):
        self.errors.append(f"{kind}: {len(found)} neighbours of {answer['items']} items")
      if answer["items"] not in self.sizes or not (whole or self.kept.issuperset(found)):
        self.errors.append(f"{kind}: an answer of two states")

  async def client(self, number, until):
    """One client, which waits for each answer before it asks again."""
    rng = np.random.default_rng(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
    try:
      while time.perf_counter() < until:
        kind, *asked = plan(rng, self.pictures, self.names, self.codes)
        start = time.perf_counter()
        status, body = await request(reader, writer, *asked)
        self.times[kind].append(time.perf_counter() - start)
        self.check(kind, status, body)
    except (OSError, EOFError, asyncio.IncompleteReadError) as error:
      self.errors.append(f"connection: {error!r}")
    finally:
      writer.close()

  async def run(self, clients, seconds, replace):
    """All clients, and the replacing of the index beside them."""
    start = time.perf_counter()
    tasks = [self.client(number, start + seconds) for number in range(clients)]
    await asyncio.gather(asyncio.to_thread(replace, start, seconds), *tasks)
    return time.perf_counter() - start


def started(index, cache):
  """The server's process and port."""
  command = [sys.executable, "-m", "udh_jax", "serve", "--index", str(index), "--port", "0"]
  root = pathlib.Path(__file__).resolve().parents[1]
  process = subprocess.Popen(
    [*command, "--cache", str(cache)], stdout=subprocess.PIPE, text=True, cwd=root
  )
  line = process.stdout.readline()
  found = re.search(r":(\d+)/", line)
  if not found:
    process.wait()
    sys.exit(f"the server did not start: {line}")
  return process, int(found[1])


def figures_of(port):
  """The server's own figures, by name."""
  import urllib.request

  with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
    lines = answer.read().decode().splitlines()
  return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line
          and not line.startswith("#"))}  # fmt: skip


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--encoder", required=True)
  parser.add_argument("--images", required=True)
  parser.add_argument("--clients", type=int, default=32)
  parser.add_argument("--seconds", type=float, default=60)
  parser.add_argument("--replace", type=int, default=10, help="times that the index is replaced")
  options = parser.parse_args()
  if not (0 < options.seconds <= LONGEST and 1 <= options.clients <= 256):
    parser.error(f"give at most {LONGEST} seconds and 256 clients")

  from udh_jax import HammingIndex, load_encoder
  from udh_jax.encoders.folder import encode_folder

  with tempfile.TemporaryDirectory() as folder:
    folder, source = pathlib.Path(folder), str(pathlib.Path(options.encoder).resolve())
    encoder = load_encoder(source)
    whole = encode_folder(encoder, options.images, folder / "whole.index", source=source)
    rows = np.arange(0, len(whole), 2)
    half = HammingIndex(
      whole.codes[rows],
      [whole.names[int(row)] for row in rows],
      num_bits=whole.num_bits,
      about=whole.about,
    )
    half.save(folder / "half.index")
    served = folder / "served.index"
    shutil.copy(folder / "whole.index", served)
    names = [whole.names[int(row)] for row in rows[:500]]
    pictures = [pathlib.Path(options.images, name).read_bytes() for name in names]
    process, port = started(served, folder / "cache")
    replaced = 0

    def replace(start, seconds):
      nonlocal replaced
      for turn in range(options.replace):
        moment = start + (turn + 0.5) * seconds / options.replace
        time.sleep(max(0.0, moment - time.perf_counter()))
        shutil.copy(folder / ("half.index", "whole.index")[turn % 2], folder / "next")
        os.replace(folder / "next", served)
        replaced += 1
        wait = time.perf_counter() + 30  # the last one, too, is to be taken up
        while figures_of(port).get('udh_jax_index_loads_total{result="taken"}', 0) < replaced:
          if time.perf_counter() > wait:
            return
          time.sleep(0.05)

    try:
      load = Load(port, pictures, whole, half)
      seconds = asyncio.run(load.run(options.clients, options.seconds, replace))
      figures = figures_of(port)
    finally:
      process.terminate()
      code = process.wait(30)
    report(options, encoder, load, seconds, replaced, figures)
    if load.errors or code:
      print(*load.errors[:5], f"the server ended with {code}", sep="\n", file=sys.stderr)
      sys.exit(1)


def report(options, encoder, load, seconds, replaced, figures):
  """Prints what was measured."""
  about = encoder.about
  print(machine.describe())
  print(
    f"{about['backbone']} at {about['image_size']} pixels, {about['bits']} bits, "
    f"{max(load.sizes):,} items, {options.clients} clients, {seconds:.0f} s\n"
  )
  total = sum(map(len, load.times.values()))
  batches = figures.get('udh_jax_batch_size_count{kind="pictures"}', 0)
  encoded = figures.get('udh_jax_batch_size_sum{kind="pictures"}', 0)
  taken = figures.get('udh_jax_index_loads_total{result="taken"}', 0)
  print("| | |\n| --- | ---: |")
  for name, value in (
    ("requests", f"{total:,}"),
    ("requests/s", f"{total / seconds:.0f}"),
    ("pictures/s", f"{encoded / seconds:.0f}"),
    ("pictures in a batch, mean", f"{encoded / max(batches, 1):.1f}"),
    ("errors", len(load.errors)),
    ("replaced", replaced),
    ("taken up", f"{taken:.0f}"),
    ("states seen in answers", len(load.states)),
  ):
    print(f"| {name} | {value} |")
  print("\n| request | number | p50, ms | p99, ms | longest, ms |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for kind, times in sorted(load.times.items()):
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    print(f"| {kind} | {len(times):,} | {p50:.1f} | {p99:.1f} | {max(times) * 1000:.0f} |")


if __name__ == "__main__":
  main()
