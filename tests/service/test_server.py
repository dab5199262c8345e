"""The program itself: starts, ends, refuses; and many clients at once."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.request

import pytest

from udh_jax.commands import serve
from udh_jax.errors import InputError
from udh_jax.service import server

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def run(tmp_path):
  """Starts the program and waits for its address; ends what still runs."""
  started = []

  def start(*arguments):
    command = [sys.executable, "-m", "udh_jax", "serve", "--port", "0"]
    command += ["--cache", str(tmp_path / "cache"), *map(str, arguments)]
    process = subprocess.Popen(
      command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started.append(process)
    line = process.stdout.readline()
    found = re.search(r"http://\S+/", line)
    assert found, line + process.stderr.read()
    return process, found[0]

  yield start
  for process in started:
    if process.poll() is None:
      process.kill()
    process.communicate()


def test_an_index_that_is_missing_ends_in_one_line(failing, tmp_path):
  line = failing(serve.main, ["--index", str(tmp_path / "none.index"), "--port", "0"])
  assert "none.index" in line and "cannot be read" in line


def test_an_index_of_another_encoder_ends_in_one_line(failing, index_path, encoders):
  _, (_, other) = encoders
  line = failing(serve.main, ["--index", str(index_path), "--encoder", str(other), "--port", "0"])
  assert "not the one that made the index" in line


def test_a_port_in_use_ends_in_one_line_before_anything_is_loaded(failing, tmp_path):
  with socket.create_server(("127.0.0.1", 0)) as taken:
    port = taken.getsockname()[1]
    line = failing(serve.main, ["--index", str(tmp_path / "none"), "--port", str(port)])
  assert str(port) in line and "--port" in line and "in use" in line


@pytest.mark.parametrize(
  "arguments",
  [["--port", "65536"], ["--max-batch", "0"], ["--max-upload-mb", "0"], ["--max-wait-ms", "-1"],
   ["--host", "no.such.host.invalid"], ["--token-file", "/nowhere/token"],
   ["--max-megapixels", "179"], ["--table", "codes"], ["--schema", "public"], ["--approximate"]],
)  # fmt: skip
def test_options_out_of_range_end_in_one_line(failing, arguments):
  line = failing(serve.main, ["--index", "x", *arguments])
  assert any(argument in line for argument in arguments)


def test_the_largest_number_of_pixels_is_pillow_s(failing):
  line = failing(serve.main, ["--index", "x", "--max-megapixels", "200"])
  assert line == (
    "error: --max-megapixels is 200; give at most 178: Pillow decodes no larger pictures."
  )
  assert "megapixels" not in failing(serve.main, ["--index", "x", "--max-megapixels", "178"])


def test_a_weak_token_is_refused(failing, tmp_path):
  for token in ("short", "with blanks in it", "grün-und-lang"):
    (tmp_path / "token").write_text(token)
    line = failing(serve.main, ["--index", "x", "--token-file", str(tmp_path / "token")])
    assert "token must have 8" in line


def test_a_free_port_of_this_machine_is_taken():
  with server.bind("127.0.0.1", 0) as first:
    host, port = first.getsockname()
    assert host == "127.0.0.1" and port > 0
    with pytest.raises(InputError, match="cannot be used"):
      server.bind("127.0.0.1", port)


@pytest.mark.parametrize(
  "address, token, allowed, expected",
  [("127.0.0.1", None, [], ("box",)), ("127.0.1.1", None, [], ("box",)),
   ("::1", None, [], ("box",)), ("0.0.0.0", None, [], None), ("192.0.2.1", None, [], None),
   ("127.0.0.1", "secret-token", [], None), ("0.0.0.0", None, ["a.example"], ["a.example"])],
)  # fmt: skip
def test_on_this_machine_alone_other_names_are_refused(address, token, allowed, expected):
  settings = SETTINGS._replace(host="box", token=token, allow_hosts=allowed)
  assert server.allowed_hosts(settings, address) == expected


SETTINGS = server.Settings(*[None] * len(server.Settings._fields))


@pytest.mark.parametrize("address, expected", [("127.0.0.1", ("box",)), ("0.0.0.0", None)])
def test_the_address_behind_a_name_decides_which_names_are_answered(
  tmp_path, monkeypatch, address, expected
):
  """Debian has the machine's own name lead to 127.0.1.1."""
  found, given = socket.getaddrinfo, []
  monkeypatch.setattr(
    socket, "getaddrinfo", lambda host, *rest, **options: found(address, *rest, **options)
  )

  def access(*, token, hosts):
    given.append(hosts)
    raise InputError("far enough")

  monkeypatch.setattr(server, "Access", access)
  monkeypatch.setattr(server, "Following", lambda *_, **__: None)
  now = types.SimpleNamespace(coder=True, collection=types.SimpleNamespace(folder=tmp_path))
  source = types.SimpleNamespace(load=lambda: now, place="x")
  settings = SETTINGS._replace(host="box", port=0, allow_hosts=[], watch=1.0)
  with pytest.raises(InputError, match="far enough"):
    server.serve(source, settings, ready=print)
  assert given == [expected]


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_one_line(run, index_path, end):
  process, address = run("--index", index_path)
  with urllib.request.urlopen(address + "healthz", timeout=30) as answer:
    assert answer.status == 200
  process.send_signal(end)
  out, err = process.communicate(timeout=30)
  assert process.returncode == 0 and out == "stopped\n" and err == ""


@pytest.mark.slow
def test_many_clients_for_three_seconds_while_the_index_is_replaced(index_path, encoders):
  """The short form of what docs/serving.md measures."""
  _, source = encoders[0]
  command = [sys.executable, "benchmarks/serve.py", "--encoder", source]
  command += ["--images", index_path.parent / "pictures", "--seconds", "3", "--replace", "3"]
  started = time.monotonic()
  done = subprocess.run(
    list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=120,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  figures = dict(re.findall(r"^\| ([a-z0-9, /]+?) +\| +([0-9.,]+)", done.stdout, re.MULTILINE))
  assert figures["errors"] == "0" and figures["replaced"] == "3" == figures["taken up"]
  assert float(figures["requests"].replace(",", "")) > 100
  assert time.monotonic() - started < 100
