"""The house: no circle of imports, rooms that depend one way, tests beside the files they test."""

import ast
import graphlib
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = "udh_jax"

# A room is a folder of the package or a file at its top. It may import from those before it alone.
ROOMS = (
  # What everything stands on.
  "errors",
  "extras",
  "files",
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
  "duplicates",
  "stores",
  "encoders",
  "service",
  "report",
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

# Test files of a room as a whole.
ACROSS = {
  "cpu/test_choice.py",
  "methods/test_presets.py",
  "models/test_architectures.py",
  "models/test_timm.py",
  "retrieval/test_scores.py",
  "service/test_page.py",
  "stages/test_rates.py",
  "stores/test_stores.py",
}

# Files without a test file of their own beside them, and where they are tested: a file or a room.
COVERED_BY = {
  # Types, registries and constants: whoever uses them.
  "__main__.py": "commands",
  "api.py": "test_documentation.py",
  "data/types.py": "data/test_registry.py",
  "evaluation/found.py": "methods",
  "losses/registry.py": "stages/test_supervised.py",
  "losses/types.py": "stages/test_supervised.py",
  "models/registry.py": "models/test_architectures.py",
  "runtime/plan.py": "methods/test_presets.py",
  "runtime/stage.py": "runtime/test_runner.py",
  # Stages of one step each, and what methods share: by running methods to their end.
  "methods": "methods",
  "stages": "methods",
  "evaluation": "methods",
  "report": "methods",
  # Networks, each against the same plain forward pass.
  "models": "models/test_architectures.py",
  # What whole kernels are made of.
  "clustering": "clustering",
  "retrieval": "retrieval",
  "similarity/cosine.py": "similarity/test_parts.py",
  "losses/competing.py": "stages/test_supervised.py",
  "losses/family.py": "losses/test_margin.py",
  "data/images.py": "data/test_loader.py",
  "data/readers": "data",
  # One door each.
  "commands": "commands",
  "encoders": "encoders",
  "cpu": "cpu",
  "duplicates": "encoders",
  "service": "service",
  "stores": "stores",
  "runtime/log.py": "end_to_end/test_command_line.py",
  # Small, and used by everything that has tests.
  "configuration.py": "methods/test_presets.py",
  "errors.py": "losses",
  "files.py": "runtime/test_checkpoint.py",
  "numerics.py": "test_precision.py",
  "printable.py": "commands",
  "records.py": "retrieval",
  "sharding.py": "runtime/test_mesh.py",
}


def modules() -> dict[str, pathlib.Path]:
  """Files of the package by dotted name."""
  found = {}
  for path in sorted((ROOT / PACKAGE).rglob("*.py")):
    parts = path.relative_to(ROOT).with_suffix("").parts
    found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
  return found


def imports(path: pathlib.Path, known: dict[str, pathlib.Path]) -> set[str]:
  """Modules among ``known`` that a file imports, in functions too."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: imports are absolute"
      # `from package import module` and `from module import name`.
      inner = {f"{node.module}.{name.name}" for name in node.names}
      found |= inner & known.keys() or {node.module}
  return found & known.keys()


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


def place_of_tests(file: str) -> str | None:
  """Where a file of the package is tested; the nearest entry of a room holds for all in it."""
  folder, _, name = file.rpartition("/")
  beside = f"{folder}/test_{name}" if folder else f"test_{name}"
  if (ROOT / "tests" / beside).exists():
    return beside
  parts = file.split("/")
  for count in range(len(parts), 0, -1):
    if (place := "/".join(parts[:count])) in COVERED_BY:
      return COVERED_BY[place]
  return None


def test_every_file_has_its_tests_beside_it_or_says_where_they_are():
  files = [path.relative_to(ROOT / PACKAGE).as_posix() for path in modules().values()]
  files = [file for file in files if not file.endswith("__init__.py")]
  assert not [file for file in files if place_of_tests(file) is None], "write a test file beside it"
  missing = {place for place in COVERED_BY.values() if not (ROOT / "tests" / place).exists()}
  assert not missing


def test_every_test_file_of_a_room_stands_beside_what_it_tests():
  rooms = {path.name for path in (ROOT / PACKAGE).iterdir() if path.is_dir()}
  astray = {
    path.relative_to(ROOT / "tests").as_posix()
    for path in (ROOT / "tests").rglob("test_*.py")
    if path.relative_to(ROOT / "tests").parts[0] in rooms
    and not (ROOT / PACKAGE / path.relative_to(ROOT / "tests").parent / path.name[5:]).exists()
  }
  assert astray <= ACROSS, astray - ACROSS
