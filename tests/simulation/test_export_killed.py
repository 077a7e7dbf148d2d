"""An export that is killed while it writes leaves files that are whole, old or new."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

KILLS = 12
HERE = Path(__file__).parents[2]

# Two generations of files, written in turn for ever: n members, all of them or none in a file.
WRITER = """
import sys
from pathlib import Path
from proxywell.model.endpoint import Protocol
from proxywell.model.member import PoolMember
from proxywell.model.verdict import Verdict
from proxywell.pool.export import export
from tests.pool_makers import endpoint, passed

def member(number):
    verdict = passed(endpoint(number), protocols=(Protocol.CONNECT, Protocol.HTTP))
    return PoolMember(**{name: getattr(verdict, name) for name in Verdict.__struct_fields__})

generations = [[member(n) for n in range(size)] for size in (1500, 3000)]
for turn in range(100_000):
    export(generations[turn % 2], Path(sys.argv[1]))
    print(turn, flush=True)
"""


def test_a_killed_export_leaves_every_file_whole(tmp_path: Path) -> None:
    draw = random.Random(5)
    for _ in range(KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=HERE, stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        assert writer.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.12))
        writer.kill()
        writer.wait(timeout=10)
        writer.stdout.close()
        for name in ("all.txt", "http.txt", "connect.txt"):
            text = (tmp_path / name).read_text()
            assert text.endswith("\n")
            assert text.count("\n") in (1500, 3000)
        assert len(json.loads((tmp_path / "proxies.json").read_text())) in (1500, 3000)
        rows = (tmp_path / "proxies.csv").read_text().splitlines()
        assert len(rows) in (1501, 3001)
