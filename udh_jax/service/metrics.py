"""Figures of a server for Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

KIND = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
  """Counts what a server does.

  Attributes:
    requests: By operation and status.
    seconds: Of a request, by operation.
    batch: Sizes of the batches that were encoded or searched, by kind.
    thumbnails: Made or found in the cache.
    loads: New states of the index, taken up or refused.
  """

  def __init__(self):
    self._registry = CollectorRegistry()

    def made(kind, name, text, labels=(), **more):
      return kind(f"udh_jax_{name}", text, labels, registry=self._registry, **more)

    self.requests = made(Counter, "requests", "Requests.", ("operation", "status"))
    self.seconds = made(
      Histogram,
      "request_seconds",
      "Seconds of a request.",
      ("operation",),
      buckets=_SECONDS,
    )
    self.batch = made(
      Histogram, "batch_size", "Queries done in one call.", ("kind",), buckets=_SIZES
    )
    self.thumbnails = made(Counter, "thumbnails", "Thumbnails.", ("source",))
    self.loads = made(Counter, "index_loads", "New states of the index.", ("result",))
    self._made = made
    made(Gauge, "start_time_seconds", "When the server began (Unix time).").set(time.time())

  def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
    """Adds a figure that is read when it is asked for."""
    self._made(Gauge, name, text).set_function(read)

  def text(self) -> bytes:
    """All figures in Prometheus' text format."""
    return generate_latest(self._registry)
