"""The source tree as the tidy rules see it: parsed once, rules run on any tree of that shape."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "proxywell"


class Module(msgspec.Struct, frozen=True):
    """One parsed file.

    Attributes:
        path: Relative to the tree's root, with slashes.
        lines: How many lines it has.
        tree: What it says.
    """

    path: str
    lines: int
    tree: ast.Module


@functools.cache
def modules(root: Path) -> tuple[Module, ...]:
    """Parse every Python file below a directory, in the order of their paths."""
    return tuple(
        Module(str(file.relative_to(root).as_posix()), text.count("\n"), ast.parse(text))
        for file in sorted(root.rglob("*.py"))
        for text in [file.read_text(encoding="utf-8")]
    )


def functions(tree: ast.AST) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its dotted name, methods and inner functions too."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        prefix, node = waiting.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
                if not isinstance(child, ast.ClassDef):
                    yield name, child
            waiting.append((name, child))
