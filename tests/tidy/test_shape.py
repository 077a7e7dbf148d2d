"""The code keeps to size, docstrings, words and safe calls; planted offences are caught."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from proxywell.errors import ProxywellError
from tests.tidy import shape
from tests.tidy.source import PACKAGE, ROOT
from tools.reference import import_everything, kinds_of

TREES = [ROOT / name for name in ("src", "tests", "benchmarks", "tools")]


def own_errors() -> frozenset[str]:
    import_everything()
    return frozenset(kind.__name__ for kind in kinds_of(ProxywellError))


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_no_file_is_too_large_and_no_function_too_long(tree: Path) -> None:
    allowed = {
        name.partition("/")[2]: why
        for table in (shape.LARGE_FILES, shape.LONG_FUNCTIONS)
        for name, why in table.items()
        if name.startswith(f"{tree.name}/")
    }
    files = {name: why for name, why in allowed.items() if ":" not in name}
    functions = {name: why for name, why in allowed.items() if ":" in name}
    assert shape.too_large(tree, files) == []
    assert shape.too_long(tree, functions) == []


def test_public_functions_say_what_they_raise() -> None:
    assert shape.undocumented(PACKAGE, own_errors()) == []


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_names_use_no_word_that_blurs(tree: Path) -> None:
    assert shape.blurred(tree, shape.BLURRED_ALLOWED) == []


def test_every_exception_is_still_needed() -> None:
    used = {offence.rpartition(" ")[2] for tree in TREES for offence in shape.blurred(tree, {})}
    assert set(shape.BLURRED_ALLOWED) <= used


def test_nothing_switches_verification_off_or_runs_what_it_reads() -> None:
    assert shape.dangerous(PACKAGE) == []


LONG = "def f():\n" + "    x = 1\n" * shape.FUNCTION_LINES_MAX
RAISES = (
    'from x import StateError\ndef f(a, b, c):\n    """Do it.{0}"""\n    raise StateError("x")\n'
)
ARGS = "\\n\\n    Args:\\n        a: A.\\n"
RAISED = "\\n\\n    Raises:\\n        StateError: Always.\\n"

Rule = Callable[[Path], list[str]]
ERRORS = frozenset({"StateError"})


@pytest.mark.parametrize(
    ("rule", "planted"),
    [
        (lambda root: shape.too_large(root, {}), "x = 1\n" * (shape.FILE_LINES_MAX + 1)),
        (lambda root: shape.too_large(root, {"small.py": "no longer"}), "x = 1\n"),
        (lambda root: shape.too_long(root, {}), LONG),
        (lambda root: shape.too_long(root, {}), LONG.replace("def", "async def")),
        (lambda root: shape.too_long(root, {}), "class C:\n    " + LONG.replace("\n", "\n    ")),
        (lambda root: shape.too_long(root, {"x.py:f": "no longer"}), "def f(): ...\n"),
        (lambda root: shape.undocumented(root, ERRORS), "def f():\n    raise x.StateError\n"),
        (lambda root: shape.undocumented(root, ERRORS), RAISES.format("")),
        (lambda root: shape.undocumented(root, ERRORS), RAISES.format(ARGS)),
        (lambda root: shape.undocumented(root, ERRORS), RAISES.format(RAISED)),
        (lambda root: shape.blurred(root, {}), "is_dead = 1\n"),
        (lambda root: shape.blurred(root, {}), "class DeadProxy: ...\n"),
        (lambda root: shape.blurred(root, {}), "def check_batch(): ...\n"),
        (lambda root: shape.blurred(root, {}), "def f(result): ...\n"),
        (lambda root: shape.blurred(root, {}), "x.alive_count = 1\n"),
        (shape.dangerous, "get(url, verify=False)\n"),
        (shape.dangerous, "context.check_hostname = False\n"),
        (shape.dangerous, "context.verify_mode = ssl.CERT_NONE\n"),
        (shape.dangerous, "import pickle\n"),
        (shape.dangerous, "from pickle import loads\n"),
        (shape.dangerous, "eval(line)\n"),
    ],
)
def test_a_planted_offence_is_caught(tmp_path: Path, rule: Rule, planted: str) -> None:
    (tmp_path / "planted.py").write_text(planted, encoding="utf-8")
    assert rule(tmp_path)


@pytest.mark.parametrize(
    "fine",
    [
        "deadline_s = 1\n",
        (
            "def f(a, b, c):\n    '''Do it.\n\n    Args:\n        a: A.\n\n    Raises:\n"
            "        StateError: Always.\n    '''\n    raise StateError\n"
        ),
        "def _private(): ...\n",
        "get(url, verify=True)\n",
    ],
)
def test_what_is_fine_is_left_alone(tmp_path: Path, fine: str) -> None:
    (tmp_path / "fine.py").write_text(fine, encoding="utf-8")
    assert shape.undocumented(tmp_path, ERRORS) == []
    assert shape.blurred(tmp_path, {}) == []
    assert shape.dangerous(tmp_path) == []


# Written in pieces, so that this file does not contain what it looks for.
FORBIDDEN_TEXTS = [
    "py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js.org", "npm" + "js.com",
    "conda." + "anaconda.org", "proxy." + "golang.org", "crates" + ".io", "ruby" + "gems.org",
    "/" + "work/", "/" + "root/", "/tmp/" + "wt", "/home/" + "runner",
]  # fmt: skip


def kept_files() -> list[Path]:
    """What is kept in the repository, or would be with the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=30,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name]


def offending(file: Path) -> list[str]:
    content = file.read_bytes().decode(errors="replace")
    return [text for text in FORBIDDEN_TEXTS if text in content]


def test_no_file_names_a_registrys_host_or_a_machines_path() -> None:
    files = [file for file in kept_files() if file.is_file() and "data" not in file.parts]
    if not files:
        pytest.skip("not a git working tree; clone the repository to run this")
    assert {str(file): found for file in files if (found := offending(file))} == {}


@pytest.mark.parametrize("planted", FORBIDDEN_TEXTS)
def test_a_planted_host_or_path_is_caught(tmp_path: Path, planted: str) -> None:
    (tmp_path / "notes.md").write_text(f"see https://{planted}/x", encoding="utf-8")
    assert offending(tmp_path / "notes.md") == [planted]
