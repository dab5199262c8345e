"""Groups of pictures that are copies of each other: found by codes, verified on the pictures."""

import concurrent.futures
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np

from udh_jax.data.pictures import decode_picture, open_regular
from udh_jax.duplicates.alignment import SIDE, agreement
from udh_jax.duplicates.looks import mirrored
from udh_jax.errors import require, whole_number
from udh_jax.machine import num_cores
from udh_jax.retrieval.hamming import TooManyHitsError, radius_search
from udh_jax.retrieval.index import HammingIndex

REACH = 28  # bits of 104 by which looks of candidates may differ
FAR = 40  # and those that are near by the encoder's code
_NEAR = 8  # neighbours by the encoder's code that are candidates
_QUERIES = 1024  # searched at once, or fewer where they have more hits than the next number
_HITS = 1 << 18  # in one search
_PAIRS, _FEW = 128, 16  # compared at once
_WAITING = 32 * _PAIRS  # pairs from which those of a batch are chosen
# A copy agrees in most places, though not everywhere (letters over it, whites cut off); another
# picture of the same thing agrees as a whole at best.
_BLOCKS, _WHOLE, _PLAIN = 0.75, 0.5, 0.97
_AS_BRIGHT = 24  # of 255: difference of the mean grey of plain copies, at most


class Copy(NamedTuple):
  """One file of a group.

  Attributes:
    name: In the index.
    width: Pixels.
    height: Pixels.
    size: Bytes of the file.
  """

  name: str
  width: int
  height: int
  size: int


class Duplicates(NamedTuple):
  """What was found in an index.

  Attributes:
    groups: Files that are copies of each other; of each group the best first: the one with the most
      pixels, of those the one with the most bytes, then by name. Large groups first.
    num_items: Pictures in the index.
    num_candidates: Pairs that were compared.
    unreadable: Names of pictures that were to be compared and cannot be read, with the reason.
    other_names: How many names were left out of the groups as they name a file that is there by
      another name, as links do. Of its names the one that is no link stands for it, or the first.
  """

  groups: list[list[Copy]]
  num_items: int
  num_candidates: int
  unreadable: dict[str, str]
  other_names: int = 0


def find_duplicates(
  index: HammingIndex,
  folder: str | os.PathLike,
  *,
  reach: int = REACH,
  progress: Callable[[str], object] = lambda text: None,
) -> Duplicates:
  """Finds pictures that are copies of each other: re-saved, resized, brightened, slightly cut.

  Candidates are pairs whose looks (`udh_jax.duplicates.looks`), upright or mirrored, differ in few
  bits, and pairs near by the encoder's code whose looks are not far. Each is verified on the
  pictures: one is laid over the other (`udh_jax.duplicates.alignment`), and they have to agree in
  most places. A pair that already is in one group through others is not compared. Nothing is
  deleted.

  Args:
    index: From `udh_jax.encoders.folder.encode_folder`.
    folder: Of its pictures.
    reach: Bits of 104 by which looks of candidates may differ, 0 to 40. More finds copies that were
      cut more, and compares more pairs.
    progress: Called with a line now and then.

  Returns:
    A `Duplicates`.

  Raises:
    InputError: If the index has no looks, the folder is missing or ``reach`` is out of range.

  References:
    Our own definition.
  """
  folder = pathlib.Path(folder)
  reach = whole_number("find_duplicates: reach", reach)
  require(0 <= reach <= FAR, f"find_duplicates: reach is {reach}, expected 0 to {FAR}.")
  require(folder.is_dir(), f"{folder} is not a folder; give the folder of the pictures.")
  wanted = ("look", "width", "height", "size")
  require(
    all(name in index.columns for name in wanted),
    "The index does not say what its pictures look like; make it again with udh-jax encode.",
  )
  unreadable: dict[str, str] = {}
  groups, compared = _Groups(len(index)), 0
  views = _Views(index, folder, unreadable)
  with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
    for pairs in _candidates(index, reach, groups, progress):
      views.read({*pairs[:, 0].tolist(), *pairs[:, 1].tolist()}, pool)
      batch = [pair for pair in pairs.tolist() if views.has(pair[0]) and views.has(pair[1])]
      if batch:
        same = _same(
          [views.of(a) for a, _, _ in batch], [views.of(b, flip) for _, b, flip in batch]
        )
        for (a, b, _), is_same in zip(batch, same, strict=True):
          if is_same:
            groups.join(a, b)
      compared += len(batch)
  sets = groups.sets()
  files = [_files_of(items, index, folder) for items in sets]
  other_names = sum(map(len, sets)) - sum(map(len, files))
  described = _described(index, [items for items in files if len(items) > 1])
  return Duplicates(described, len(index), compared, unreadable, other_names)


def _files_of(items: list[int], index: HammingIndex, folder: pathlib.Path) -> list[int]:
  """One item for each file of some: whoever removes all copies but one must not remove that."""
  root = os.path.realpath(folder)
  by_file: dict[object, list[tuple[bool, int]]] = {}
  for item in items:
    path = os.path.join(root, index.names[item])
    try:
      status = os.stat(path)
      file: object = status.st_dev, status.st_ino
    except OSError:  # gone by now
      file = item
    by_file.setdefault(file, []).append((os.path.realpath(path) != os.path.normpath(path), item))
  return [min(names)[1] for names in by_file.values()]


def _candidates(
  index: HammingIndex, reach: int, groups: "_Groups", progress
) -> Iterator[np.ndarray]:
  """Pairs (a, b, whether b is mirrored) to compare at once: int64 ``[p, 3]``, up to `_PAIRS`.

  A set of pictures of one look, say blank pages, has as many pairs as the square of their number.
  So these come first, each with one of them; who has been joined to it by then has no pairs of
  looks of its own any more.
  """
  if len(index) < 2:
    return
  looks = np.ascontiguousarray(index.columns["look"])
  _, kinds = np.unique(looks.reshape(len(looks), -1), axis=0, return_inverse=True)
  kinds = kinds.reshape(-1)
  yield from _of_one_look(kinds, groups)
  alone = np.flatnonzero([groups.of(item) == item for item in range(len(looks))])
  databases = [np.ascontiguousarray(looks[alone, view]) for view in (0, 1)]
  done, size = 0, _QUERIES
  while done < len(alone):
    items = alone[done : done + size]
    try:
      pairs = _found_by_looks(looks, kinds, alone, databases, items, reach)
    except TooManyHitsError:
      size = -(-len(items) // 2)
      continue
    yield from _unjoined(pairs, groups)
    before, done = done, done + len(items)
    if before // _QUERIES < done // _QUERIES and done < len(alone):
      progress(f"{done:,} of {len(alone):,} looks searched")
    size = min(2 * size, _QUERIES)
  found = [pairs[pairs[:, 3] > reach] for pairs in _neighbours_by_code(index, looks)]
  yield from _unjoined(_most_alike_first(np.concatenate(found)), groups)


def _of_one_look(kinds, groups) -> Iterator[np.ndarray]:
  """Pairs of equal looks: of each set the first with all others, then the rest likewise."""
  order = np.argsort(kinds, kind="stable")
  sets = [items.tolist() for items in np.split(order, np.cumsum(np.bincount(kinds))[:-1])]
  while sets := [items for items in sets if len(items) > 1]:
    pairs = np.array([(first, item, 0) for first, *rest in sets for item in rest], np.int64)
    yield from (pairs[start : start + _PAIRS] for start in range(0, len(pairs), _PAIRS))
    sets = [[item for item in rest if groups.of(item) != groups.of(first)] for first, *rest in sets]


def _found_by_looks(looks, kinds, alone, databases, items, reach) -> np.ndarray:
  """Pairs of some items with all of ``alone`` whose looks differ in up to ``reach`` bits.

  Those that `_of_one_look` has made are left out, and those with an item before the first of these,
  where that one has found them.

  Raises:
    TooManyHitsError: If there are several items, and more than `_HITS` in a search.
  """
  found, most = [], _HITS if len(items) > 1 else None
  for database in databases:
    for flip in (0, 1):
      queries = mirrored(looks[items, 0]) if flip else looks[items, 0]
      hits = radius_search(queries, database, reach, most=most)
      a = np.repeat(items, np.diff(hits.starts))
      b, distances = alone[hits.indices], hits.distances
      again = (b < items[0]) & (_distances(looks, b, a, flip) <= reach)
      again |= (kinds[a] == kinds[b]) & (flip == 0)
      found.append(_ordered(a[~again], b[~again], flip, distances[~again]))
  return _most_alike_first(np.concatenate(found))


def _distances(looks, a, b, flip) -> np.ndarray:
  """Bits in which the look of ``a``, or of its mirror image, differs from the nearer of b's."""
  first = looks[a, 0]
  first = mirrored(first) if flip else first
  return np.bitwise_count(first[:, None] ^ looks[b]).sum(axis=2, dtype=np.int64).min(axis=1)


def _most_alike_first(pairs) -> np.ndarray:
  """Rows of `_ordered` by distance, each pair once and without it."""
  pairs = pairs[np.lexsort((pairs[:, 2], pairs[:, 1], pairs[:, 0], pairs[:, 3]))]
  _, first = np.unique(pairs[:, :3], axis=0, return_index=True)
  return pairs[np.sort(first), :3]


def _ordered(a, b, flip, distances) -> np.ndarray:
  """Rows (smaller, larger, flip, distance) without pairs of a picture and itself."""
  a, b, distances = (np.asarray(x, np.int64)[a != b] for x in (a, b, distances))
  return np.stack([np.minimum(a, b), np.maximum(a, b), np.full_like(a, flip), distances], axis=1)


def _neighbours_by_code(index, looks) -> Iterator[np.ndarray]:
  """Rows of `_ordered` of items that are near by the encoder's code and not far by their looks."""
  k = min(_NEAR + 1, len(index))
  for start in range(0, len(index), _QUERIES):
    b = index.search(index.codes[start : start + _QUERIES], k).indices.astype(np.int64)
    a = np.broadcast_to(np.arange(start, start + len(b))[:, None], b.shape)
    a, b = a.reshape(-1), b.reshape(-1)
    for flip in (0, 1):
      distances = np.minimum(_distances(looks, a, b, flip), _distances(looks, b, a, flip))
      near = distances <= FAR
      yield _ordered(a[near], b[near], flip, distances[near])


def _unjoined(pairs, groups) -> Iterator[np.ndarray]:
  """Pairs that are not in one group yet, some at a time; groups grow meanwhile.

  Of the pairs of a batch no two have a picture in common, nor one of the same group, since the
  first may make the second needless. A batch is chosen from the first `_WAITING` pairs that are
  left, in their order, so that it is small only where these have few pictures.
  """
  place, waiting = 0, np.zeros((0, 3), np.int64)
  while place < len(pairs) or len(waiting):
    taken = max(_WAITING - len(waiting), 0)
    waiting = np.concatenate([waiting, pairs[place : place + taken]])
    place += taken
    roots = groups.roots(waiting[:, :2])  # [w, 2]
    apart = roots[:, 0] != roots[:, 1]
    waiting, roots = waiting[apart], roots[apart]
    used: set[int] = set()
    chosen = []
    for row, (a, b) in enumerate(roots.tolist()):
      if a not in used and b not in used:
        used |= {a, b}
        chosen.append(row)
        if len(chosen) == _PAIRS:
          break
    if chosen:
      batch, waiting = waiting[chosen], np.delete(waiting, chosen, axis=0)
      yield batch


class _Groups:
  """Disjoint sets of items."""

  def __init__(self, num_items):
    self._parent = np.arange(num_items)

  def of(self, item: int) -> int:
    """One item that stands for all of its set."""
    root = item
    while self._parent[root] != root:
      root = int(self._parent[root])
    while self._parent[item] != root:
      self._parent[item], item = root, int(self._parent[item])
    return root

  def roots(self, items: np.ndarray) -> np.ndarray:
    """`of` of many items."""
    roots = self._parent[items]
    while not np.array_equal(roots, above := self._parent[roots]):
      roots = above
    self._parent[items] = roots
    return roots

  def join(self, a: int, b: int) -> None:
    """Makes one set of two."""
    a, b = sorted((self.of(a), self.of(b)))
    self._parent[b] = a

  def sets(self) -> list[list[int]]:
    """The sets of more than one item."""
    members: dict[int, list[int]] = {}
    for item in np.flatnonzero(self._parent != np.arange(len(self._parent))).tolist():
      members.setdefault(self.of(item), []).append(item)
    return [[root, *others] for root, others in members.items()]


class _Views:
  """Grey pictures of 64 by 64 pixels, the last ones that were asked for."""

  _KEPT = 1 << 16  # of 4 KiB each

  def __init__(self, index, folder, unreadable):
    self._names, self._folder, self._unreadable = index.names, folder, unreadable
    self._views: dict[int, np.ndarray | None] = {}

  def read(self, items, pool) -> None:
    missing = [item for item in items if item not in self._views]
    if len(self._views) + len(missing) > self._KEPT:
      self._views = {item: self._views[item] for item in items if item in self._views}
    for item, view in zip(missing, pool.map(self._read, missing), strict=True):
      if isinstance(view, str):
        self._unreadable[self._names[item]] = view
      self._views[item] = None if isinstance(view, str) else view

  def has(self, item) -> bool:
    return self._views[item] is not None

  def of(self, item, flip=0) -> np.ndarray:
    view = self._views[item]
    assert view is not None, item
    return view[:, ::-1] if flip else view

  def _read(self, item) -> np.ndarray | str:
    try:
      with open_regular(self._folder / self._names[item]) as file:
        return view_of(file)
    except OSError as error:
      return error.strerror or str(error)
    except ValueError as error:
      return str(error)


def view_of(file: bytes | IO[bytes]) -> np.ndarray:
  """The whole of a picture file, grey, as a square: uint8 ``[64, 64]``.

  Raises:
    ValueError: If it cannot be decoded.
  """
  from PIL import Image

  views = []

  def whole(picture, width, height):
    grey = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    views.append(np.asarray(grey))

  decode_picture(file, SIDE // 2, whole=whole)
  return views[-1]


def _same(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
  """Whether pictures are copies. bool array of shape ``[n]``."""
  a, b = np.stack(first), np.stack(second)
  same = _agree(a, b, align=False)
  rest = np.flatnonzero(~same)
  if len(rest):
    same[rest] = _agree(a[rest], b[rest], align=True)
  return same


def _agree(a, b, *, align) -> np.ndarray:
  size = _FEW if len(a) <= _FEW else _PAIRS  # two shapes, each compiled once
  fill = ((0, size - len(a)), (0, 0), (0, 0))
  found = agreement(np.pad(a, fill), np.pad(b, fill), align=align)
  whole, blocks, detail = (
    np.asarray(x)[: len(a)] for x in (found.whole, found.blocks, found.detail)
  )
  # Without detail there is nothing that could agree in places: plain pictures are as bright.
  as_bright = np.abs(a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))) <= _AS_BRIGHT
  plain = (whole >= _PLAIN) & as_bright
  return np.where(detail >= 6, (blocks >= _BLOCKS) & (whole >= _WHOLE), plain)


def summary(found: Duplicates) -> str:
  """How much there is twice, in a sentence."""
  more = sum(len(group) - 1 for group in found.groups)
  size = sum(copy.size for group in found.groups for copy in group[1:])
  groups = "1 group" if len(found.groups) == 1 else f"{len(found.groups):,} groups"
  links = ""
  if found.other_names:
    links = f" {found.other_names:,} more names are links to files that are here, and left out."
  return (
    f"{groups}; {more:,} of {found.num_items:,} pictures are copies of better ones "
    f"({size / 1e6:,.1f} MB).{links}"
  )


def _described(index, sets) -> list[list[Copy]]:
  columns = {name: index.columns[name] for name in ("width", "height", "size")}

  def copy(item):
    return Copy(index.names[item], *(int(columns[name][item]) for name in columns))

  groups = []
  for items in sets:
    copies = [copy(item) for item in items]
    groups.append(sorted(copies, key=lambda c: (-c.width * c.height, -c.size, c.name)))
  return sorted(groups, key=lambda group: (-len(group), group[0].name))
