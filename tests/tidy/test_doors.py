"""Doors hold: floors by import-linter, pure rules by our own; planted violations are caught."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.purity import IMPURE, PURE, impurities
from tests.tidy.source import PACKAGE, ROOT


def lint_imports(tree: Path) -> tuple[bool, str]:
    """Run import-linter with the project's contracts on a tree of the project's shape."""
    ended = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache", "--config",
         str(ROOT / "pyproject.toml")],
        cwd=tree, env={"PYTHONPATH": str(tree / "src"), "PATH": ""}, capture_output=True,
        text=True, check=False, timeout=100,
    )  # fmt: skip
    assert "Contracts:" in ended.stdout, ended.stdout + ended.stderr
    return ended.returncode == 0, ended.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package in which violations can be planted."""
    shutil.copytree(PACKAGE, tmp_path / "src" / "proxywell")
    return tmp_path


def test_no_room_uses_one_above_it_or_beside_it(copy: Path) -> None:
    kept, told = lint_imports(copy)
    assert kept, told


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("model/endpoint.py", "from proxywell.config import loader"),
        ("pool/score.py", "from proxywell.refresh import ports"),
        ("protocols/machine.py", "from proxywell.net import guard"),
    ],
)
def test_a_planted_import_of_a_higher_room_is_caught(copy: Path, file: str, line: str) -> None:
    target = copy / "src" / "proxywell" / file
    target.write_text(f"{target.read_text('utf-8')}\n{line}\n", encoding="utf-8")
    kept, told = lint_imports(copy)
    assert not kept, told


def test_a_new_room_without_a_floor_is_caught(copy: Path) -> None:
    room = copy / "src" / "proxywell" / "attic"
    room.mkdir()
    (room / "__init__.py").write_text('"""A room that nobody placed."""\n', encoding="utf-8")
    kept, told = lint_imports(copy)
    assert not kept, told


def test_pure_rules_reach_nothing_impure() -> None:
    assert impurities(PACKAGE) == []


def test_every_rule_on_purity_is_about_a_module_that_is_there() -> None:
    assert [pattern for pattern in PURE if not any(PACKAGE.glob(pattern))] == []


@pytest.mark.parametrize("impure", sorted(IMPURE))
@pytest.mark.parametrize(
    "planted",
    ["import {0}\n", "from {0} import x\n", "def f():\n    import {0}.deep\n"],
)
def test_a_planted_impurity_is_caught(tmp_path: Path, impure: str, planted: str) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "score.py").write_text(planted.format(impure), encoding="utf-8")
    assert impurities(tmp_path)


def test_an_impurity_behind_another_module_is_caught_and_one_for_types_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "refresh").mkdir()
    (tmp_path / "refresh" / "plan.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from proxywell.refresh import order\n"
        "if TYPE_CHECKING:\n    import ssl\n",
        encoding="utf-8",
    )
    (tmp_path / "refresh" / "order.py").write_text("from random import shuffle\n", "utf-8")
    assert impurities(tmp_path) == [
        "proxywell.refresh.plan -> proxywell.refresh.order -> random",
        "proxywell.refresh.plan -> proxywell.refresh.order -> random.shuffle",
    ]
