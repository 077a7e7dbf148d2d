"""The installed command as a user runs it: a process, a home of its own, a directory to work in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.network.lab_client import Served, Truth

RUN_S = 90.0
# short enough for tests, long enough for a machine that is busy with others
CHECKING = {
    "connect_soft_s": 1.0,
    "connect_hard_s": 2.0,
    "answer_soft_s": 2.0,
    "answer_hard_s": 4.0,
}
# so that what a killed process held is soon taken back
REFRESH = {"lease_s": 1.5, "beat_s": 0.4}

Report = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """What became of one command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The last line on stderr: the one sentence of a command that fails."""
        return self.err.rstrip().rpartition("\n")[2]


class Home:
    """A user: state and settings of their own, and files where they work."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        self.directory = directory
        self.state = directory / "state" / "proxywell"
        (directory / "proxywell.toml").write_text(settings)

    def write(self, name: str, content: str | bytes) -> str:
        """Make a file in the working directory; give its name."""
        data = content.encode() if isinstance(content, str) else content
        (self.directory / name).write_bytes(data)
        return name

    def start(
        self, *arguments: str, more: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-m", "proxywell", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self._environment(more),
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str,
        stdin: str = "",
        more: Mapping[str, str] | None = None,
        limit_s: float = RUN_S,
    ) -> Done:
        """Run a command to its end; ``more`` goes into its environment."""
        done = subprocess.run(
            [sys.executable, "-m", "proxywell", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environment(more),
            timeout=limit_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def members(self) -> list[Report]:
        """The pool as it stands."""
        found: list[Report] = self.run("list", "--output", "json").json
        return found

    def jobs(self) -> list[Report]:
        """All refresh jobs, newest first."""
        found: list[Report] = self.run("job", "list", "--output", "json").json
        return found

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PROXYWELL")}
        places = {
            "HOME": str(self.directory),
            "XDG_CONFIG_HOME": str(self.directory / "config"),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "COLUMNS": "200",
        }
        return {**kept, **places, **(more or {})}


def settings_for(lab: Served) -> str:
    """Settings with which everything is read from and checked against this lab."""
    offer = lab.offer
    text = json.dumps  # strings, lists and numbers of JSON are TOML as well
    sections: dict[str, dict[str, Any]] = {
        "network": {"allow_private": True},
        "judge": {"public_keys": [offer["public_key"]], "ca_file": offer["ca_file"]},
        "sources": {"lists": [one["path"] for one in offer["lists"]]},
        "checking": {"source_address": offer["source_address"], **CHECKING},
        "refresh": REFRESH,
    }
    lines = [f"judges = {text(offer['judges'])}"]
    for name, fields in sections.items():
        lines += [f"[{name}]", *(f"{field} = {text(value)}" for field, value in fields.items())]
    return "\n".join(lines) + "\n"


def listed(truths: Iterable[Truth]) -> str:
    """A list of these proxies without hints."""
    return "".join(f"{url_host(truth['host'])}:{truth['port']}\n" for truth in truths)


def url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def job_id_in(line: str) -> str:
    """The job that a line of stderr names."""
    found = re.search(r"job (\d{8}-\d{6}-[0-9a-f]{6})\b", line)
    assert found is not None, line
    return found[1]


def assert_balanced(report: Report) -> None:
    """The contract's two equations, and what follows from them."""
    items, verdicts = report["items"], report["verdicts"]
    assert items["planned"] == items["checked"] + items["given_up"]
    assert items["given_up"] == sum(items["given_up_why"].values())
    assert items["checked"] == sum(
        verdicts[name] for name in ("working", "not_working", "inconclusive")
    )
    assert sum(verdicts["by_failure"].values()) == items["checked"] - verdicts["working"]
    assert sum(verdicts["by_anonymity"].values()) == verdicts["working"]
    chunks = report["chunks"]
    assert chunks["planned"] == chunks["done"] + chunks["given_up"]
