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
