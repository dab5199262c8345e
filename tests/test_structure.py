"""The house: no circle of imports, rooms that depend one way, tests beside the files they test."""

import ast
import functools
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PACKAGE = "udh_jax"

# A room is a folder of the package or a file at its top. It may import from those before it alone.
ROOMS = (
  # What everything stands on.
  "arrays",
  "errors",
  "extras",
  "files",
  "machine",
  "numerics",
  "sharding",
  "configuration",
  "printable",
  "records",
  # Pictures, texts, labels and splits.
  "data",
  # Programs for a CPU's own instructions, which kernels choose.
  "cpu",
  # Kernels: pure functions of arrays.
  "clustering",
  "coding",
  "similarity",
  "losses",
  "retrieval",
  "models",
  # What is done with trained networks and codes.
  "report",
  "duplicates",
  "stores",
  "encoders",
  "service",
  "api",
  # Methods: what runs a stage, stages, plans of them, scores.
  "runtime",
  "stages",
  "evaluation",
  "methods",
  # What a user starts.
  "commands",
  "__main__",
)

# Test files of what is not one file of the package, and what they test.
ACROSS = {
  "models/test_architectures.py": "each network against one plain forward pass",
  "models/test_timm.py": "each network against timm's own",
  "service/test_page.py": "the page, which is JavaScript",
  "stages/test_rates.py": "the learning rates of all methods' layers",
  "stages/test_pair_stages.py": "the trainings of pairs, step by step",
}

# Files without a test file of their own beside them, and the one that tests them.
COVERED_BY = {
  # One line, types or a table: whoever uses them.
  "__main__.py": "commands/test_main.py",
  "api.py": "test_documentation.py",
  "arrays.py": "retrieval/test_hamming.py",
  "data/types.py": "data/test_registry.py",
  "losses/registry.py": "stages/test_supervised.py",
  "losses/types.py": "stages/test_supervised.py",
  "runtime/plan.py": "methods/test_registry.py",
  "runtime/stage.py": "runtime/test_runner.py",
  "similarity/cosine.py": "test_numerics.py",
  # Parts of one kernel, which is tested as a whole against an independent one.
  "clustering/fold.py": "clustering/test_equal_size_kmeans.py",
  "clustering/members.py": "clustering/test_equal_size_kmeans.py",
  "clustering/potentials.py": "clustering/test_rounding.py",
  "clustering/restarts.py": "clustering/test_kmeans.py",
  "cpu/expectation.py": "retrieval/test_metrics.py",
  "cpu/lookup.py": "cpu/test_distances.py",
  "cpu/neighbours.py": "retrieval/test_hamming.py",
  "cpu/ranking.py": "retrieval/test_metrics.py",
  "cpu/similarity.py": "retrieval/test_asymmetric.py",
  "cpu/sweeps.py": "coding/test_dcc.py",
  "losses/competing.py": "stages/test_supervised.py",
  "losses/family.py": "stages/test_supervised.py",
  "retrieval/sharded.py": "retrieval/test_profile.py",
  # Networks: against the plain forward passes; attention with what is made of it.
  "models/convnet.py": "models/test_heads.py",
  "models/convnext.py": "models/test_registry.py",
  "models/inputs.py": "models/test_weights.py",
  "models/layers.py": "models/test_architectures.py",
  "models/parts.py": "similarity/test_parts.py",
  "models/resnet.py": "models/test_architectures.py",
  "models/vit.py": "models/test_architectures.py",
  # By what their one caller reads or writes.
  "data/images.py": "data/test_pictures.py",
  "data/readers/files.py": "data/readers/test_nus_wide.py",
  "data/readers/folder.py": "data/test_pictures.py",
  "duplicates/page.py": "duplicates/test_find.py",
  "encoders/distributed/file_systems.py": "encoders/distributed/test_parts.py",
  "encoders/distributed/listing.py": "encoders/distributed/test_parts.py",
  "encoders/published.py": "encoders/test_loading.py",
  "encoders/reading.py": "encoders/test_folder.py",
  "retrieval/index/faiss_index.py": "retrieval/index/test_hamming_index.py",
  "retrieval/index/searchable.py": "encoders/test_queries.py",
  "retrieval/index/version1.py": "retrieval/index/test_hamming_index.py",
  "stores/as_index.py": "encoders/test_store.py",
  "stores/embedded.py": "stores/test_postgresql.py",
  "stores/postgresql_server.py": "stores/test_postgresql.py",
  "stores/transfer.py": "stores/test_interface.py",
  # The service is asked as its clients ask it.
  "service/access.py": "service/test_application.py",
  "service/collection.py": "service/test_application.py",
  "service/encoding.py": "service/test_application.py",
  "service/interface.py": "service/test_application.py",
  "service/metrics.py": "service/test_application.py",
  "service/operations.py": "service/test_application.py",
  "service/problems.py": "service/test_application.py",
  # Programs: with what they call, where the made files are.
  "commands/duplicates.py": "duplicates/test_find.py",
  "commands/encode.py": "encoders/test_folder.py",
  "commands/evaluate.py": "commands/test_train.py",
  "commands/serve.py": "service/test_server.py",
  "commands/store_flags.py": "encoders/test_store.py",
  # Stages of one step each, and what a whole run needs: by one run to its end.
  "evaluation/found.py": "commands/test_train.py",
  "evaluation/pairs.py": "methods/test_dudch.py",
  "methods/baseline.py": "methods/test_registry.py",
  "methods/bihalf.py": "methods/test_registry.py",
  "methods/defaults.py": "methods/test_registry.py",
  "methods/pair_contrast.py": "methods/test_registry.py",
  "methods/ssdh.py": "methods/test_registry.py",
  "methods/steps.py": "methods/test_registry.py",
  "report/page.py": "commands/test_train.py",
  "report/sections.py": "commands/test_train.py",
  "runtime/log.py": "commands/test_train.py",
  "stages/baselines.py": "commands/test_train.py",
  "stages/ucch.py": "methods/test_dudch.py",
  "stages/clusterings.py": "commands/test_train.py",
  "stages/djsrh.py": "methods/test_dudch.py",
  "stages/encode.py": "commands/test_train.py",
  "stages/linear.py": "methods/test_dhih.py",
  "stages/map_rows.py": "stages/test_parts.py",
  "stages/partitions.py": "stages/test_guard.py",
  "stages/pair_contrast.py": "methods/test_dudch.py",
  "stages/pair_network.py": "methods/test_dudch.py",
  "stages/similarity.py": "methods/test_dudch.py",
  "stages/start.py": "stages/test_guard.py",
  "stages/discriminant.py": "stages/test_guard.py",
}


@functools.cache
def modules() -> dict[str, pathlib.Path]:
  """Files of the package by dotted name."""
  found = {}
  for path in sorted((ROOT / PACKAGE).rglob("*.py")):
    parts = path.relative_to(ROOT).with_suffix("").parts
    found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return found


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text())


def imports(path: pathlib.Path, known: dict[str, pathlib.Path]) -> set[str]:
  """Modules among ``known`` that a file imports, in functions too."""
  found = set()
  for node in ast.walk(tree(path)):
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: imports are absolute"
      # `from package import module` and `from module import name`.
      inner = {f"{node.module}.{name.name}" for name in node.names}
      found |= {name if name in known else node.module for name in inner}
  return found & known.keys()


@functools.cache
def graph() -> dict[str, set[str]]:
  known = modules()
  return {name: imports(path, known) for name, path in known.items()}


def room(module: str) -> str:
  return module.split(".")[1] if "." in module else PACKAGE


def test_no_file_imports_itself_through_others():
  graphlib.TopologicalSorter(graph()).prepare()  # raises CycleError with the files of a circle


def test_rooms_depend_on_rooms_before_them():
  found = graph()
  rooms = {room(name) for name in found} - {PACKAGE}
  assert rooms <= set(ROOMS), f"give {rooms - set(ROOMS)} a place among ROOMS"
  wrong = {
    f"{name} imports {other}"
    for name, others in found.items()
    for other in others
    if room(name) != PACKAGE and room(other) != room(name)
    if room(other) == PACKAGE or ROOMS.index(room(other)) > ROOMS.index(room(name))
  }
  assert not wrong


def test_a_circle_and_an_import_in_a_function_are_noticed(tmp_path):
  (tmp_path / "a.py").write_text("def f():\n  from pack import b\n  from pack.b import x\n")
  known = {"pack": tmp_path / "pack.py", "pack.b": tmp_path / "b.py"}
  assert imports(tmp_path / "a.py", known) == {"pack.b"}


def beside(file: str) -> str:
  """Where the tests of a file of the package belong."""
  folder, _, name = file.rpartition("/")
  return f"{folder}/test_{name}" if folder else f"test_{name}"


def files_of_the_package() -> dict[str, str]:
  """Dotted name by path, but for the files that only gather a room's names."""
  found = {path.relative_to(ROOT / PACKAGE).as_posix(): name for name, path in modules().items()}
  return {path: name for path, name in found.items() if not path.endswith("__init__.py")}


def reached_by(test: str, known: dict[str, set[str]]) -> set[str]:
  """Modules that a test file, or a conftest above it, imports, and those that these import."""
  place = TESTS / test
  files = [place, *(folder / "conftest.py" for folder in place.parents if ROOT in folder.parents)]
  waiting = set().union(*(imports(file, modules()) for file in files if file.exists()))
  reached = set()
  while waiting:
    reached |= (more := waiting - reached)
    waiting = set().union(*(known[name] for name in more)) - reached
  return reached


def test_every_file_has_its_tests_beside_it_or_says_where_they_are():
  files = files_of_the_package()
  alone = {file for file in files if not (TESTS / beside(file)).exists()}
  assert not alone - COVERED_BY.keys(), "write a test file beside it"
  assert not COVERED_BY.keys() - alone, "it has a test file of its own, or is gone"


def test_what_is_said_to_test_a_file_imports_it():
  known, files = graph(), files_of_the_package()
  started = {"__main__.py", "api.py"}  # by another program, and by the examples of the docs
  assert not {
    f"{test} never comes to {file}"
    for file, test in COVERED_BY.items()
    if file not in started and files[file] not in reached_by(test, known)
  }


def test_every_test_file_stands_beside_what_it_tests():
  rooms = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir()}
  tests = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}
  expected = {beside(file) for file in files_of_the_package()}
  astray = {test for test in tests - expected if test.split("/")[0] in rooms}
  assert astray == ACROSS.keys()
