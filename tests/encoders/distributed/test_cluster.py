"""A Ray cluster of two nodes on this machine, one of which is lost on the way."""

import threading
import time

import numpy as np
import pytest

from udh_jax.encoders.distributed import code_batches, encode_distributed, parts_to_index
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster():
  """A head, which only drives, and one node of one core."""
  from ray.cluster_utils import Cluster

  made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
  made.add_node(**NODE)
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


def test_a_node_is_lost_on_the_way(cluster, encoder, pictures, expected, tmp_path, capsys):
  second = cluster.add_node(**NODE)
  output, lost = tmp_path / "codes", []

  def lose():
    codes = output / "codes"
    while not codes.is_dir() or len(list(codes.glob("part-*"))) < 3:
      time.sleep(0.05)
    cluster.remove_node(second, allow_graceful=False)
    lost.append(len(list(codes.glob("part-*"))))

  thread = threading.Thread(target=lose, daemon=True)
  thread.start()
  options = {"source": "runs/x", "part_size": 1, "batch_size": 4}
  result = encode_distributed(encoder, str(pictures), str(output), **options)
  thread.join(timeout=60)
  assert lost and lost[0] < 38  # while there was work to do
  assert found_in(str(output)) == expected
  assert result[:1] == (38,) and result.unreadable == 1
  assert sum(node["Alive"] for node in ray.nodes()) == 2
  # The folder is whole: nothing is left to do, and nothing is done twice.
  capsys.readouterr()
  again = encode_distributed(encoder, str(pictures), str(output), **options)
  assert (again.encoded, again.workers) == (0, {})
  assert "38 of 38 pictures were done before" in capsys.readouterr().out
  # A stopped run goes on with what is not there.
  for file in sorted((output / "codes").iterdir())[5:9]:
    file.unlink()
  again = encode_distributed(encoder, str(pictures), str(output), **options)
  assert again.encoded == 4
  assert found_in(str(output)) == expected
  assert parts_to_index(str(output), tmp_path / "x.index") == 37
  index = HammingIndex.load(tmp_path / "x.index")
  assert dict(zip(index.names, index.codes.tolist(), strict=True)) == expected


def test_what_fails_in_a_worker_is_one_line(cluster, encoder, pictures, tmp_path):
  output = tmp_path / "codes"
  output.mkdir()
  (output / "codes").write_text("a file in the way of the folder")
  with pytest.raises(InputError, match=r"Encoding with Ray failed: .*cannot be written") as caught:
    encode_distributed(encoder, str(pictures), str(output))
  assert "\n" not in str(caught.value)
