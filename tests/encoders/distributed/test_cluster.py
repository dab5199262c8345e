"""A Ray cluster of two nodes on this machine, one of which is lost on the way."""

import collections
import http.server
import threading
import time
import urllib.parse

import numpy as np
import pytest

from udh_jax.encoders.distributed import code_batches, encode_distributed, parts_to_index
from udh_jax.encoders.distributed.listing import make_plan
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
psutil = pytest.importorskip("psutil")
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster():
  """A head, which only drives, and one node of one core."""
  from ray.cluster_utils import Cluster

  made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
  made.node = made.add_node(**NODE)
  ray.init(address=made.address, log_to_driver=False, logging_level="error")
  yield made
  ray.shutdown()
  made.shutdown()


def found_in(output):
  batches = list(code_batches(output))
  names = [name for rows in batches for name in rows.names]
  codes = np.concatenate([rows.codes for rows in batches])
  assert len(names) == len(set(names))
  return dict(zip(names, codes.tolist(), strict=True))


@pytest.fixture
def bucket(pictures):
  """An object store that has the pictures, as S3 gives them; it can hold back its answers."""

  class Handler(http.server.BaseHTTPRequestHandler):
    asked, before_answer = collections.Counter(), staticmethod(lambda asked: None)

    def do_HEAD(self):
      self.answer(b"")

    def do_GET(self):
      name = urllib.parse.unquote(self.path.partition("?")[0]).removeprefix("/bucket/")
      Handler.asked[name] += 1
      self.before_answer(Handler.asked)
      self.answer((pictures / name).read_bytes())

    def answer(self, data):
      name = urllib.parse.unquote(self.path.partition("?")[0]).removeprefix("/bucket/")
      file = pictures / name
      self.send_response(200 if file.is_file() else 404)
      if file.is_file():
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("Content-Type", "image/png")
      self.end_headers()
      self.wfile.write(data)

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  Handler.url = (
    f"s3://key:secret@bucket?scheme=http&endpoint_override=127.0.0.1:{server.server_port}"
    "&region=us-east-1"
  )
  yield Handler
  server.shutdown()
  server.server_close()


def processes_of(node):
  """Processes of Ray Data's actors on a node."""
  (raylet,) = node.all_processes["raylet"]
  children = psutil.Process(raylet.process.pid).children(recursive=True)
  return [child for child in children if "MapWorker" in " ".join(child.cmdline())]


def test_a_node_is_lost_on_the_way(cluster, bucket, encoder, pictures, expected, tmp_path, capsys):
  nodes = [cluster.node, cluster.add_node(**NODE)]
  output, lost, lock = tmp_path / "codes", [], threading.Lock()

  def lose(asked):
    """Waits with the tenth picture until both nodes work, and then kills one of them."""
    with lock:
      if lost or len(asked) < 10:
        return
      end = time.monotonic() + 120
      while not all(map(processes_of, nodes)) and time.monotonic() < end:
        time.sleep(0.1)
      working = processes_of(nodes[1])
      lost.append((len(working), len(list((output / "codes").glob("part-*")))))
      for process in working:
        process.kill()
      cluster.remove_node(nodes[1], allow_graceful=False)

  bucket.before_answer = staticmethod(lose)
  listing = tmp_path / "listing.parquet"
  names = [*sorted(expected), "group 0/broken.jpg", "absent.png"]
  pq.write_table(pa.table({"path": names}), listing)
  options = {"source": "runs/x", "part_size": 2, "batch_size": 4, "root": bucket.url}
  result = encode_distributed(encoder, str(listing), str(output), workers=2, **options)
  ((working, done),) = lost
  assert working == 1 and done < 15  # it had work, and there was work to do
  assert found_in(str(output)) == expected
  assert (result.pictures, result.unreadable) == (39, 2)
  # The folder is whole: nothing is left to do, and nothing is done twice.
  capsys.readouterr()
  asked = bucket.asked.copy()
  again = encode_distributed(encoder, str(listing), str(output), **options)
  assert (again.encoded, again.workers) == (0, {})
  assert "39 of 39 pictures were done before" in capsys.readouterr().out
  assert bucket.asked == asked
  # A stopped run goes on with what is not there.
  for file in sorted((output / "codes").iterdir())[5:9]:
    file.unlink()
  again = encode_distributed(encoder, str(listing), str(output), **options)
  assert again.encoded == 8
  assert found_in(str(output)) == expected
  assert parts_to_index(str(output), tmp_path / "x.index") == 37
  index = HammingIndex.load(tmp_path / "x.index")
  assert dict(zip(index.names, index.codes.tolist(), strict=True)) == expected


def test_what_fails_in_a_worker_is_one_line(cluster, encoder, pictures, tmp_path):
  output = tmp_path / "codes"
  make_plan(encoder, str(pictures), str(output))
  (output / "listing" / "00000.parquet").write_bytes(b"damaged meanwhile")
  with pytest.raises(
    InputError, match=r"Encoding with Ray failed: .*00000\.parquet cannot be read"
  ) as caught:
    encode_distributed(encoder, str(pictures), str(output))
  assert "\n" not in str(caught.value) and "InputError" not in str(caught.value)
