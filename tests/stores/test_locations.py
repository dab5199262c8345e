"""What names a store, and what does not."""

import pytest

from udh_jax.errors import InputError
from udh_jax.stores import open_store
from udh_jax.stores.locations import is_store


@pytest.mark.parametrize("location", ["", "codes.db", "mysql://user:secret@host/x", "lancedb:"])
def test_locations_that_are_none(location):
  with pytest.raises(InputError, match="lancedb:FOLDER") as caught:
    open_store(location)
  assert "secret" not in str(caught.value)


def test_a_file_is_not_a_store():
  assert is_store("lancedb:x") and is_store("postgresql://host/x") and is_store("postgresql")
  assert not is_store("a.index") and not is_store("folder/postgresql")
