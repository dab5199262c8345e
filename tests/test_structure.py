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
  # Pictures, texts, labels and splits.
  "data",
  # Kernels: pure functions of arrays.
  "clustering",
  "coding",
  "similarity",
  "losses",
  "retrieval",
  "models",
  # What is done with trained networks and codes.
  "stores",
  "encoders",
  "service",
  "report",
  # Methods: what runs a stage, stages, plans of them, scores.
  "runtime",
  "stages",
  "evaluation",
  "methods",
  # What a user starts.
  "commands",
  "__main__",
)

# Files whose tests are elsewhere, and where.
COVERED_BY = {
  # What one method alone trains, and the plan of its stages, are tested by running the method.
  "methods": "tests/methods",
  # Wiring of kernels that have tests of their own: it is tested by running methods.
  "stages/cluster.py": "tests/methods",
  "stages/clusterings.py": "tests/methods",
  "stages/contrast.py": "tests/stages/test_rates.py",
  "stages/distill.py": "tests/stages/test_rates.py",
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
