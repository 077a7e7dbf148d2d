"""The command line as a process, whatever the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_reader_that_leaves_early_is_no_error() -> None:
    script = (
        "import sys\n"
        "from proxywell.cli import main as frame\n"
        "import rich_click as click\n"
        "@click.command()\n"
        "def talk():\n"
        "    for _ in range(100_000):\n"
        "        sys.stdout.write('x' * 100 + '\\n')\n"
        "frame.COMMANDS['talk'] = ('', '', '')\n"
        "frame.load_command = lambda _: talk\n"
        "frame.program(['talk'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"}, cwd=Path(__file__).parents[2],
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0


def test_a_closed_stdout_swallows_and_no_file_takes_its_number() -> None:
    script = (
        "import os\n"
        "from proxywell.cli import main as frame\n"
        "import rich_click as click\n"
        "@click.command()\n"
        "def talk():\n"
        "    taken = os.open('/dev/zero', os.O_RDONLY)\n"
        "    print('to nobody', flush=True)\n"
        "    raise SystemExit(0 if taken > 2 else 9)\n"
        "frame.COMMANDS['talk'] = ('', '', '')\n"
        "frame.load_command = lambda _: talk\n"
        "frame.program(['talk'])\n"
    )
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- <&-', "sh", sys.executable, "-c", script],
        stderr=subprocess.PIPE, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "src"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_while_the_modules_load_shows_no_traceback() -> None:
    script = (
        "import sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'proxywell.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from proxywell.__main__ import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": "src"}, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (130, "")
