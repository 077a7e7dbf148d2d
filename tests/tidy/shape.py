"""Rules on size, docstrings, words and dangerous calls; each takes a tree and tells offences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.source import functions, modules

FILE_LINES_MAX = 450
FUNCTION_LINES_MAX = 70

# What may be larger, and why. An entry that is no longer needed is an offence as well.
LARGE_FILES: dict[str, str] = {
    "tests/unit/protocols/test_answer.py": "all claims about one machine",
}
LONG_FUNCTIONS: dict[str, str] = {}

# STYLE, section 4: words that blur. `task` is only the event loop's and Celery's own.
BLURRED = frozenset({"alive", "dead", "batch", "task", "tasks", "result", "results"})
BLURRED_ALLOWED: dict[str, str] = {
    "alive": "of a worker's node, never of a proxy",
    "alive_s": "of a worker's node, never of a proxy",
}
ROOMS_THAT_ARE_NONE = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})


def too_large(root: Path, allowed: dict[str, str]) -> list[str]:
    """Files past the limit without a stated reason, and reasons without such a file."""
    large = {m.path: m.lines for m in modules(root) if m.lines > FILE_LINES_MAX}
    offences = [f"{path}: {lines} lines" for path, lines in large.items() if path not in allowed]
    return offences + [f"{path}: no exception needed" for path in allowed if path not in large]


def too_long(root: Path, allowed: dict[str, str]) -> list[str]:
    """Functions past the limit, from ``def`` to the last line, and needless exceptions."""
    long = {}
    for module in modules(root):
        for name, function in functions(module.tree):
            lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long[f"{module.path}:{name}"] = lines
    offences = [f"{where}: {lines} lines" for where, lines in long.items() if where not in allowed]
    return offences + [f"{where}: no exception needed" for where in allowed if where not in long]


def undocumented(root: Path, errors: frozenset[str]) -> list[str]:
    """Public functions whose docstring does not say what they take and what they raise.

    That there is a docstring at all is ruff's to check. A function that raises one of our
    errors names it under ``Raises:``, and its arguments under ``Args:`` if there are more of
    them than one sentence can tell. A command is excepted: its docstring is the user's help.
    """
    offences = []
    for module in modules(root):
        for name, function in functions(module.tree):
            if _is_private(name) or any(
                "command" in ast.unparse(d) for d in function.decorator_list
            ):
                continue
            told = ast.get_docstring(function) or ""
            raised = _raised(function) & errors
            offences += [
                f"{module.path}:{name}: raises {error} and does not say so"
                for error in sorted(raised)
                if error not in told.partition("Raises:")[2]
            ]
            if raised and len(_arguments(function)) > 2 and "Args:" not in told:
                offences.append(f"{module.path}:{name}: no Args")
    return offences


def blurred(root: Path, allowed: dict[str, str]) -> list[str]:
    """Names that are made of a blurred word, and modules that are rooms of no one."""
    offences = []
    for module in modules(root):
        stem = Path(module.path).stem
        if stem in ROOMS_THAT_ARE_NONE:
            offences.append(f"{module.path}: a room for nothing in particular")
        for name, line in [(stem, 0), *_names(module.tree)]:
            words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}
            if words & BLURRED and name not in allowed:
                offences.append(f"{module.path}:{line}: {name}")
    return offences


def dangerous(root: Path) -> list[str]:
    """Verification switched off, and modules that run what they read."""
    offences = []
    for module in modules(root):
        for node in ast.walk(module.tree):
            text = _danger(node)
            if text:
                offences.append(f"{module.path}:{getattr(node, 'lineno', 0)}: {text}")
    return offences


_READS_CODE = frozenset({"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "jsonpickle"})
_OFF = frozenset({"verify", "check_hostname", "verify_ssl", "ssl_verify"})


def _danger(node: ast.AST) -> str:
    if isinstance(node, ast.keyword) and node.arg in _OFF and _is_false(node.value):
        return f"{node.arg}=False"
    if isinstance(node, ast.Assign) and _is_false(node.value):
        names = {t.attr for t in node.targets if isinstance(t, ast.Attribute)} & _OFF
        return "".join(f"{name} = False" for name in names)
    if isinstance(node, ast.Attribute) and node.attr in {
        "CERT_NONE", "_create_unverified_context", "_create_stdlib_context",
    }:  # fmt: skip
        return node.attr
    if isinstance(node, ast.Import | ast.ImportFrom):
        source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        names = {source.partition(".")[0], *(alias.name.partition(".")[0] for alias in node.names)}
        return ", ".join(sorted(names & _READS_CODE))
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"eval", "exec", "yaml.load"}:
        return ast.unparse(node.func)
    return ""


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _is_private(name: str) -> bool:
    parts = name.split(".")
    return any(part.startswith("_") for part in parts) or (
        len(parts) > 1 and not parts[-2][:1].isupper()
    )


def _raised(function: ast.AST) -> frozenset[str]:
    """Names of the exceptions that are raised here, not in functions inside."""
    found: set[str] = set()
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found.add(ast.unparse(raised).rpartition(".")[2])
        waiting += ast.iter_child_nodes(node)
    return frozenset(found)


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    spec = function.args
    names = [one.arg for one in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
    return [name for name in names if name not in {"self", "cls"}]


def _names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every name that a module gives: to functions, classes, arguments, variables, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield (node.id if isinstance(node, ast.Name) else node.attr), node.lineno
