"""Which modules are pure rules, and what they must never reach."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

from tests.tidy.source import modules

PURE = (
    "protocols/*.py",
    "model/*.py",
    "refresh/ledger.py",
    "refresh/books.py",
    "refresh/bookkeeping.py",
    "refresh/closing.py",
    "refresh/spans.py",
    "refresh/plan.py",
    "refresh/timeline.py",
    "refresh/tidings.py",
    "refresh/deadline.py",
    "refresh/standstill.py",
    "checking/ladder.py",
    "checking/anonymity.py",
    "checking/exit_ip.py",
    "checking/health.py",
    "checking/pages.py",
    "checking/wire.py",
    "orchestrator/tending.py",
    "pool/score.py",
    "pool/selection.py",
    "pool/member_state.py",
    "sources/parse.py",
    "sources/grammar.py",
    "sources/tally.py",
    "sources/gathering.py",
    "sources/harvest.py",
    "sources/coding.py",
)
IMPURE = frozenset(
    {
        "asyncio", "socket", "ssl", "select", "time", "random", "threading", "sqlite3", "redis",
        "celery",
    }
)  # fmt: skip
WHERE_TIME_COMES_FROM = "proxywell.model.clock"  # hands time to rules; the one reader of it


def impurities(package: Path) -> list[str]:
    """Every way from a pure module to something impure, as ``a -> b -> socket``.

    What is imported for type checking alone is not reached; an import inside a function is.

    Args:
        package: The directory of the package ``proxywell``, or of a tree of its shape.
    """
    graph = _imports(package)
    ways = []
    for name in sorted(graph):
        path = Path(name.removeprefix("proxywell.").replace(".", "/") + ".py")
        if name != WHERE_TIME_COMES_FROM and any(path.match(pattern) for pattern in PURE):
            ways += [" -> ".join(way) for way in _ways(name, graph)]
    return ways


def _ways(start: str, graph: dict[str, frozenset[str]]) -> Iterator[tuple[str, ...]]:
    seen = {start}
    waiting: list[tuple[str, ...]] = [(start,)]
    while waiting:
        way = waiting.pop()
        for target in sorted(graph.get(way[-1], frozenset()) - seen):
            seen.add(target)
            if target.partition(".")[0] in IMPURE:
                yield (*way, target)
            elif target in graph and target != WHERE_TIME_COMES_FROM:
                waiting.append((*way, target))


@functools.cache
def _imports(package: Path) -> dict[str, frozenset[str]]:
    graph = {}
    for module in modules(package):
        name = "proxywell." + module.path.removesuffix(".py").replace("/", ".")
        graph[name.removesuffix(".__init__")] = frozenset(_targets(module.tree))
    return graph


def _targets(tree: ast.Module) -> Iterator[str]:
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        waiting += ast.iter_child_nodes(node)
