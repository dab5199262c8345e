"""Everything that an accelerator should be fast at, in one call: checked, timed, written down.

  python benchmarks/accelerator.py --json accelerator.json     # one GPU or TPU: under 8 minutes
  JAX_PLATFORMS=cpu python benchmarks/accelerator.py --small    # any machine: under a minute

Needs jax, flax, optax, orbax-checkpoint and numpy alone. Where torch is installed and sees the GPU,
training steps are compared with torch.compile in this process; where faiss does, search is compared
with GpuIndexBinaryFlat, for which no figures are published. Results are checked against the CPU
first. Of each program the compiled cost stands beside the time: operations and bytes as XLA counts
them (loops once), and of what has to be moved at least, the share of the device's bandwidth.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time
import traceback

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves room for the peers
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # it need not be installed

import jax
import jax.numpy as jnp
import machine
import made
import numpy as np
import optax

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.clustering.sinkhorn import sinkhorn
from udh_jax.coding.dcc import dcc
from udh_jax.cpu.choice import kernels
from udh_jax.encoders.image import codes_of
from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.retrieval import hamming, radius_search, retrieval_scores, search

# Bytes a second of the memory, by what the name of a device begins with (makers' data sheets).
BANDWIDTH = {
  "NVIDIA H200": 4.8e12,
  "NVIDIA H100 80GB HBM3": 3.35e12,
  "NVIDIA H100 PCIe": 2.0e12,
  "NVIDIA H100": 3.35e12,
  "NVIDIA A100-SXM4-80GB": 2.04e12,
  "NVIDIA A100": 1.56e12,
  "NVIDIA L40S": 0.864e12,
  "NVIDIA L4": 0.3e12,
  "NVIDIA A10": 0.6e12,
  "Tesla V100": 0.9e12,
  "Tesla T4": 0.32e12,
  "TPU v4": 1.2e12,
  "TPU v5 lite": 0.82e12,
  "TPU v5": 2.77e12,
  "TPU v6 lite": 1.64e12,
}
UPDATES = 4  # of centroids
FULL = {
  "checked": ((8, 64, 256), (1, 10, 999)),
  "items": 1_000_000,
  "queries": 1000,
  "bits": (64, 256),
  "neighbours": (10, 100, 1000),
  "many_items": 10_000_000,
  "scored": (1000, 50_000),
  "clustered": ((1_000_000, 64, 1000), (10_000_000, 64, 1000)),
  "transported": (50_000, 100),
  "coded": (186_577, 64),
  "trained": (("mobilenetv2_100", 256), ("resnet50", 128), ("vit_small_patch16_224", 128)),
  "encoded": ("mobilenetv2_100", 2048, 256),
  "size": 224,
  "repeats": 5,
}
SMALL = FULL | {
  "checked": ((64,), (10,)),
  "items": 20_000,
  "queries": 16,
  "bits": (64,),
  "neighbours": (10,),
  "many_items": 40_000,
  "scored": (16, 2000),
  "clustered": ((2000, 8, 10),),
  "transported": (500, 10),
  "coded": (2000, 16),
  "trained": (("small_convnet", 4),),
  "encoded": ("small_convnet", 8, 4),
  "size": 32,
  "repeats": 2,
}


class Report:
  """Rows of one table, each also a JSON object."""

  def __init__(self, device: jax.Device):
    self.rows: list[dict] = []
    self.failures: list[str] = []
    names = [name for name in BANDWIDTH if device.device_kind.startswith(name)]
    self.bandwidth = BANDWIDTH[max(names, key=len)] if names else None

  def add(self, what, seconds, *, rate=None, unit="", moved=None, cost=None, note=""):
    """One measurement.

    Args:
      what: What was done.
      seconds: Of each run.
      rate: Things done in a run, of which a number a second is told.
      unit: What they are.
      moved: Bytes that have to be read or written at least.
      cost: The compiled program's cost analysis.
      note: Anything else.
    """
    median = float(np.median(seconds))
    row = {"what": what, "seconds": median, "least": min(seconds), "most": max(seconds)}
    if rate:
      row |= {"rate": rate / median, "unit": unit}
    if moved:
      row["bytes_at_least"] = moved
      if self.bandwidth:
        row["share_of_bandwidth"] = moved / median / self.bandwidth
    if cost:
      row |= {"flops": cost.get("flops"), "bytes_accessed": cost.get("bytes accessed")}
    self.rows.append(row | ({"note": note} if note else {}))
    share = f"{row['share_of_bandwidth']:.1%}" if "share_of_bandwidth" in row else ""
    each = f"{row['rate']:.3g} {unit}/s" if rate else ""
    counted = [
      f"{row[key]:.2e}" if row.get(key) is not None else "" for key in ("flops", "bytes_accessed")
    ]
    shown = f"{median:.4g} ({min(seconds):.4g} to {max(seconds):.4g})"
    print(f"| {what} | {shown} | {each} | {share} | {' | '.join(counted)} | {note} |", flush=True)


def timed(run, repeats, *, limit=20.0):
  """Seconds of several runs after one that is not counted, or of fewer where they take long."""
  jax.block_until_ready(run())
  seconds = []
  while len(seconds) < repeats and (not seconds or sum(seconds) < limit):
    start = time.perf_counter()
    jax.block_until_ready(run())
    seconds.append(time.perf_counter() - start)
  return seconds


def compiled(function, *arrays):
  """The function compiled for these arrays, and its cost as XLA counts it."""
  program = jax.jit(function).lower(*arrays).compile()
  cost = program.cost_analysis()
  return program, (cost[0] if isinstance(cost, list) else cost) or {}


def made_codes(size, num_bits, seed=0):
  rng = np.random.default_rng(seed)
  return made.codes(rng, np.random.default_rng(1).random((1000, num_bits)) < 0.5, size)


def on_cpu(function, *arrays):
  """What a function gives on this machine's CPU."""
  cpu = jax.devices("cpu")[0]
  with jax.default_device(cpu), kernels("auto"):
    return jax.tree.map(np.asarray, function(*(jax.device_put(array, cpu) for array in arrays)))


def check(sizes, report):
  """Every kernel gives on the device what it gives on a CPU."""
  del report
  rng = np.random.default_rng(0)
  for num_bits in sizes["checked"][0]:
    database, labels = made.codes(rng, rng.random((10, num_bits)) < 0.5, 5000)
    queries = database[:37]
    for k in sizes["checked"][1]:
      for a, b in zip(
        search(jnp.asarray(queries), jnp.asarray(database), k),
        on_cpu(lambda q, d, k=k: search(q, d, k), queries, database),
        strict=True,
      ):
        np.testing.assert_array_equal(a, b)
    found = radius_search(jnp.asarray(queries), jnp.asarray(database), num_bits // 8)
    expected = on_cpu(lambda q, d, r=num_bits // 8: radius_search(q, d, r), queries, database)
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_array_equal(a, b)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    case = queries, database, labels[:37], labels
    for ties in ("index", "expected"):
      scores = retrieval_scores(*case, at=(100, None), ties=ties, mesh=mesh)
      with kernels("auto"):
        expected = retrieval_scores(*case, at=(100, None), ties=ties)
      np.testing.assert_allclose(scores.average_precision, expected.average_precision, rtol=1e-5)
  features = made.features(rng, 3000, 16)
  cluster = functools.partial(equal_size_kmeans, key=jax.random.key(0))
  found = cluster(jnp.asarray(features), 20)
  expected = on_cpu(lambda x: cluster(x, 20), features)
  assert found.sizes.tolist() == expected.sizes.tolist() == [150] * 20
  np.testing.assert_allclose(found.inertia, expected.inertia, rtol=1e-2)
  cost = np.square(features[:500, None, :4] - features[None, :10, :4]).sum(-1)
  solve = functools.partial(sinkhorn, epsilon=0.5, max_iterations=50, tolerance=None)
  np.testing.assert_allclose(
    solve(jnp.asarray(cost)).column_potential,
    on_cpu(solve, cost).column_potential,
    rtol=1e-3,
    atol=1e-3,
  )
  case = discrete_problem(1000, 24)
  improve = functools.partial(dcc, num_sweeps=2)
  np.testing.assert_array_equal(improve(*map(jnp.asarray, case)), on_cpu(improve, *case))
  print("checked against the CPU: search, radius search, scores, clusters, Sinkhorn, DCC\n")


def discrete_problem(rows, bits):
  """Whole numbers and sixteenths, so that any order of the sums gives the same codes."""
  rng = np.random.default_rng(0)
  outputs = np.round(16 * np.tanh(rng.normal(size=(500, bits)))) / 16
  linear = np.round(rng.normal(scale=300, size=(rows, bits)) * 16) / 16
  codes = np.where(rng.normal(size=(rows, bits)) >= 0, 1, -1)
  return [array.astype(np.float32) for array in (codes, linear, outputs.T @ outputs)]


def searches(sizes, report):
  """Exact search, and a plain top_k of all distances."""
  cases = [(sizes["items"], bits, sizes["neighbours"]) for bits in sizes["bits"]]
  cases.append((sizes["many_items"], 64, sizes["neighbours"][:1]))
  for num_items, num_bits, neighbours in cases:
    codes, _ = made_codes(num_items, num_bits)
    queries, _ = made_codes(sizes["queries"], num_bits, seed=2)
    flat = gpu_faiss(codes)
    pairs = len(queries) * num_items
    # At least: the codes are read once, and a byte or two of distance written and read for a pair.
    moved = codes.nbytes + 2 * pairs * hamming.distance_dtype(num_bits // 8).itemsize
    codes, queries = jnp.asarray(codes), jnp.asarray(queries)
    for k in neighbours:
      name = f"{len(queries):,} x {num_items:,}, {num_bits} bits, k = {k}"
      run, cost = compiled(functools.partial(search, k=k), queries, codes)
      seconds = timed(lambda run=run, q=queries, c=codes: run(q, c), sizes["repeats"])
      own = run(queries, codes)
      report.add(f"search {name}", seconds, rate=pairs, unit="pairs", moved=moved, cost=cost)
      plain, cost = compiled(functools.partial(plain_top_k, k=k), queries, codes)
      np.testing.assert_array_equal(plain(queries, codes)[0], own.distances)
      report.add(
        f"plain lax.top_k {name}",
        timed(lambda plain=plain, q=queries, c=codes: plain(q, c), sizes["repeats"]),
        rate=pairs,
        unit="pairs",
        cost=cost,
      )
      if flat is not None:
        given = np.asarray(queries)
        np.testing.assert_array_equal(flat.search(given, k)[0], own.distances)
        report.add(
          f"FAISS GpuIndexBinaryFlat {name}",
          timed(lambda k=k, q=given, flat=flat: flat.search(q, k), sizes["repeats"]),
          rate=pairs,
          unit="pairs",
        )


def plain_top_k(queries, codes, k):
  """What one would write first, a few queries at a time: all distances, and the k least."""
  at_once = max(1, min(len(queries), 2**26 // len(codes)))
  chunks = jnp.pad(queries, ((0, -len(queries) % at_once), (0, 0)))

  def nearest(chunk):
    values, indices = jax.lax.top_k(-hamming.hamming_distance(chunk, codes), k)
    return -values, indices

  found = jax.lax.map(nearest, chunks.reshape(-1, at_once, chunks.shape[1]))
  return [values.reshape(-1, k)[: len(queries)] for values in found]


def gpu_faiss(codes):
  """FAISS's index on the GPU, where it is installed for one."""
  try:
    import faiss

    resources = faiss.StandardGpuResources()
  except (ImportError, AttributeError):
    return None
  index = faiss.GpuIndexBinaryFlat(resources, 8 * codes.shape[1])
  index.add(codes)
  index.kept = resources
  return index


def scores(sizes, report):
  """mAP on the device."""
  num_queries, num_items = sizes["scored"]
  rng = np.random.default_rng(0)
  prototypes = rng.random((10, 64)) < 0.5
  (queries, labels), (database, database_labels) = (
    made.codes(rng, prototypes, size) for size in (num_queries, num_items)
  )
  mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  for ties in ("index", "expected"):

    def run(ties=ties):
      return retrieval_scores(
        queries, database, labels, database_labels, at=(1000, None), ties=ties, mesh=mesh
      ).average_precision

    report.add(
      f"mAP@1000 and @ALL, ties {ties}, {num_queries:,} x {num_items:,}, 64 bits",
      timed(run, sizes["repeats"]),
      rate=num_queries * num_items,
      unit="pairs",
    )


def clusters(sizes, report):
  """Equal-size k-means."""
  for rows, dim, count in sizes["clustered"]:
    features = jnp.asarray(made.features(np.random.default_rng(0), rows, dim))
    run, cost = compiled(
      lambda x, count=count: equal_size_kmeans(
        x, count, key=jax.random.key(0), max_iterations=UPDATES, hard_iterations=1
      ),
      features,
    )
    start = time.perf_counter()
    out = jax.block_until_ready(run(features))
    seconds = [time.perf_counter() - start]
    assert int(out.sizes.max()) - int(out.sizes.min()) <= 1
    report.add(
      f"equal-size k-means {rows:,} x {dim}, K = {count:,}, {UPDATES} updates",
      seconds,
      rate=rows * UPDATES,
      unit="rows",
      moved=features.nbytes * UPDATES,
      cost=cost,
      note=f"inertia {float(out.inertia):.4g}",
    )


def transport(sizes, report):
  """Sinkhorn, 30 iterations."""
  rows, columns = sizes["transported"]
  rng = np.random.default_rng(0)
  cost_matrix = jnp.asarray(rng.random((rows, columns), dtype=np.float32))
  run, cost = compiled(
    lambda cost: sinkhorn(cost, epsilon=0.05, max_iterations=30, tolerance=None), cost_matrix
  )
  report.add(
    f"Sinkhorn {rows:,} x {columns}, 30 iterations",
    timed(lambda: run(cost_matrix), sizes["repeats"]),
    rate=30,
    unit="iterations",
    moved=30 * cost_matrix.nbytes,
    cost=cost,
  )


def discrete(sizes, report):
  """One sweep of DCC."""
  rows, bits = sizes["coded"]
  case = [jnp.asarray(array) for array in discrete_problem(rows, bits)]
  run, cost = compiled(functools.partial(dcc, num_sweeps=1), *case)
  report.add(
    f"DCC sweep {rows:,} x {bits}",
    timed(lambda: run(*case), sizes["repeats"]),
    rate=rows * bits,
    unit="bits",
    moved=3 * case[0].nbytes,
    cost=cost,
  )


def training(sizes, report):
  """Training steps in bfloat16: forward, cross-entropy, backward, SGD with momentum."""
  side = sizes["size"]
  for name, batch in sizes["trained"]:
    network = Classifier(create_backbone(name, dtype=jnp.bfloat16), 1000)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((batch, side, side, 3), dtype=np.float32))
    labels = jnp.asarray(rng.integers(0, 1000, batch))
    variables = jax.jit(network.init)(jax.random.key(0), images[:1])
    optimizer = optax.sgd(0.01, momentum=0.9)
    rest = {key: value for key, value in variables.items() if key != "params"}

    def step(state, images, labels, network=network, optimizer=optimizer, rest=rest):
      parameters, momenta = state

      def loss(parameters):
        logits, _ = network.apply(rest | {"params": parameters}, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

      value, gradients = jax.value_and_grad(loss)(parameters)
      updates, momenta = optimizer.update(gradients, momenta)
      return (optax.apply_updates(parameters, updates), momenta), value

    state = variables["params"], optimizer.init(variables["params"])
    run = jax.jit(step, donate_argnums=0).lower(state, images, labels).compile()
    cost = run.cost_analysis()
    cost = (cost[0] if isinstance(cost, list) else cost) or {}
    kept = [state]

    def call(run=run, kept=kept, images=images, labels=labels):
      for _ in range(5):
        kept[0], value = run(kept[0], images, labels)
      return value

    seconds = [each / 5 for each in timed(call, sizes["repeats"])]
    assert np.isfinite(float(call()))
    flops = cost.get("flops") or 0
    report.add(
      f"training step {name}, {side} px, batch {batch}, bfloat16",
      seconds,
      rate=batch,
      unit="images",
      cost=cost,
      note=f"{flops / np.median(seconds) / 1e12:.3g} TFLOP/s" if flops else "",
    )
    peer = torch_seconds(name, batch, side, sizes["repeats"])
    if peer:
      report.add(
        f"torch.compile {name}, {side} px, batch {batch}, bfloat16",
        peer,
        rate=batch,
        unit="images",
        note=f"{np.median(seconds) / np.median(peer):.2f} of its time is ours",
      )


def torch_seconds(name, batch, side, repeats):
  """The same step by PyTorch, compiled, where it is installed and sees a GPU."""
  try:
    import torch
    import torch_networks
  except ImportError:
    return None
  if not torch.cuda.is_available():
    return None
  network = torch_networks.create(name, 1000).cuda().to(memory_format=torch.channels_last)
  network.eval()  # running statistics are frozen, as ours are
  optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
  images = torch.randn(batch, 3, side, side, device="cuda")
  images = images.to(memory_format=torch.channels_last)
  labels = torch.randint(0, 1000, (batch,), device="cuda")
  forward = torch.compile(network)

  def call():
    for _ in range(5):
      optimizer.zero_grad()
      with torch.autocast("cuda", torch.bfloat16):
        value = torch.nn.functional.cross_entropy(forward(images), labels)
      value.backward()
      optimizer.step()
    torch.cuda.synchronize()

  for _ in range(2):
    call()
  seconds = [each / 5 for each in timed(call, repeats)]
  torch.cuda.empty_cache()
  return seconds


def encoding(sizes, report):
  """Images in memory to packed codes in memory: what a GPU gives with nothing to read or decode."""
  name, count, batch = sizes["encoded"]
  side = sizes["size"]
  about = {
    "backbone": name,
    "padding": "symmetric",
    "dtype": "bfloat16",
    "image_size": side,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "bits": 64,
  }
  backbone = create_backbone(name)
  variables = jax.jit(backbone.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
  rng = np.random.default_rng(0)
  projection = rng.normal(size=(backbone.feature_dim, 64)).astype(np.float32)
  variables = {
    "backbone": variables,
    "hash": {"kernel": jnp.asarray(projection), "bias": jnp.zeros(64)},
  }
  images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
  encode = jax.jit(lambda variables, images: codes_of(variables, images, about))

  def run():
    # Each batch is sent while the one before is computed.
    return [encode(variables, images[at : at + batch]) for at in range(0, count, batch)]

  report.add(
    f"encode {name}, {side} px, batch {batch}, from memory to codes",
    timed(run, sizes["repeats"]),
    rate=count,
    unit="images",
    moved=images.nbytes,
  )


SECTIONS = (searches, scores, clusters, transport, discrete, training, encoding)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
  parser.add_argument("--json", help="file to write the rows to")
  parser.add_argument("--only", nargs="+", choices=[section.__name__ for section in SECTIONS])
  options = parser.parse_args()
  sizes, device = (SMALL if options.small else FULL), jax.devices()[0]
  began, report = time.perf_counter(), Report(device)
  about = machine.describe(f"{device.device_kind} ({device.platform})")
  print(about + ("; --small: the figures mean nothing" if options.small else ""))
  with kernels("jax"):  # also on a CPU, where these programs would otherwise not run
    check(sizes, report)
    print("| what | s | rate | of bandwidth | flops | bytes accessed | |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for section in SECTIONS:
      if options.only and section.__name__ not in options.only:
        continue
      try:
        section(sizes, report)
      except Exception:  # the others are still worth their time
        report.failures.append(section.__name__)
        traceback.print_exc()
  print(f"\n{time.perf_counter() - began:.0f} s in all")
  if options.json:
    found = {"machine": about, "small": options.small, "rows": report.rows}
    pathlib.Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
  if report.failures:
    sys.exit(f"failed: {', '.join(report.failures)}")


if __name__ == "__main__":
  main()
