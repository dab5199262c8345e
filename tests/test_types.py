"""Every public function says the types of its arguments and of its result; mypy checks them."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "udh_jax"
# numba finds out the types of what it compiles.
COMPILED = {
  PACKAGE / "cpu" / f"{name}.py" for name in ("compiled", "distances", "lookup", "neighbours")
}


def public_functions(tree):
  """Functions of a module and methods of its classes whose names do not begin with _."""
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from public_functions(node)
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if is_function and not node.name.startswith("_"):
      yield node


def untyped(function):
  """What lacks a type, by name."""
  given = function.args
  arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs]
  arguments += [one for one in (given.vararg, given.kwarg) if one]
  names = [one.arg for one in arguments if one.annotation is None]
  names = [name for name in names if name not in ("self", "cls")]
  return names + ["return"] * (function.returns is None)


def test_public_functions_are_typed():
  count, missing = 0, []
  for file in sorted(set(PACKAGE.rglob("*.py")) - COMPILED):
    for function in public_functions(ast.parse(file.read_text())):
      count += 1
      if names := untyped(function):
        place = f"{file.relative_to(PACKAGE.parent)}:{function.lineno}"
        missing.append(f"{place} {function.name}: {', '.join(names)}")
  assert count > 300
  assert not missing, "\n".join(["no type for:", *missing])
