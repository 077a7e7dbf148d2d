"""Examine settings, host and services; each finding comes with its remedy.

A check is a function from a Patient to findings, listed in ``CHECKS``; a room that has more to
examine adds one. A check must end by itself and never change what it looks at.
"""

from __future__ import annotations

import asyncio
import os
import platform
import select
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import rich_click as click

from proxywell.checking.judges import Judges
from proxywell.cli import doctor_services
from proxywell.cli.exit_codes import DONE, SURROUNDINGS_FAILED
from proxywell.cli.findings import Check, Finding, Patient, State
from proxywell.cli.options import Output, output_option, place_options
from proxywell.cli.output import show_object
from proxywell.config.loader import load
from proxywell.config.places import make_ready, state_directory
from proxywell.config.schema import Settings
from proxywell.errors import ProxywellError, StateError
from proxywell.net.guard import Guard
from proxywell.pool import store as pool_file
from proxywell.refresh.ledgers import sqlite as ledger_file

SPACE_LOW_BYTES: Final = 200 * 2**20
SPACE_OUT_BYTES: Final = 20 * 2**20
STORE_CHECK_S: Final = 5.0
STORES: Final = (ledger_file.FILE_NAME, pool_file.FILE_NAME)
RESERVED_FILES: Final = 64  # standard streams, stores, event loop, judges, lists being read
JUDGE_PATIENCE_S: Final = 5.0
SQLITE_STEPS_BETWEEN_LOOKS: Final = 10_000


def settings_are_right(patient: Patient) -> Iterator[Finding]:
    """Settings load, and the files that they name are there."""
    if patient.settings_error is not None:
        yield Finding(
            "settings", State.FAILED, patient.settings_error, "correct it; the rest of this "
            "examination used the defaults",
        )  # fmt: skip
        return
    yield Finding("settings", State.WELL, "all values are in their ranges")
    settings = patient.settings
    named = {
        "judge.ca_file": settings.judge.ca_file,
        "pool.geo_file": settings.pool.geo_file,
        "pool.asn_file": settings.pool.asn_file,
    }
    for path, file in named.items():
        if file is not None and not os.access(file, os.R_OK):
            yield Finding(path, State.FAILED, f"{file} cannot be read", f"mend {path}")


def state_can_be_kept(patient: Patient) -> Iterator[Finding]:
    """The state directory can be written, or made, and has room."""
    try:
        free_bytes = _free_bytes(patient.state_dir)
    except (StateError, OSError) as error:
        yield Finding("state directory", State.FAILED, str(error), "name another one with --state")
        return
    said = f"{patient.state_dir}, {free_bytes / 2**20:,.0f} MiB free"
    if free_bytes < SPACE_LOW_BYTES:
        state = State.FAILED if free_bytes < SPACE_OUT_BYTES else State.WEAK
        yield Finding("state directory", state, said, "make room, or name another one with --state")
    else:
        yield Finding("state directory", State.WELL, said)


def _free_bytes(directory: Path) -> int:
    """Room in a directory that can be written; one that does not exist is not made for it."""
    home = next(place for place in (directory, *directory.parents) if place.exists())
    if home == directory:
        make_ready(directory)
    elif not (home.is_dir() and os.access(home, os.W_OK | os.X_OK)):
        raise StateError(f"state directory {directory} cannot be made in {home}")
    return shutil.disk_usage(home).free


def stores_are_whole(patient: Patient) -> Iterator[Finding]:
    """Every store that exists opens and passes SQLite's own examination, within seconds."""
    for name in STORES:
        file = patient.state_dir / name
        if file.exists():
            yield _store(name, file)


def _store(name: str, file: Path) -> Finding:
    until_s = time.monotonic() + STORE_CHECK_S
    try:
        store = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=STORE_CHECK_S)
        try:
            store.set_progress_handler(
                lambda: time.monotonic() > until_s, SQLITE_STEPS_BETWEEN_LOOKS
            )
            verdict = store.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            store.close()
    except sqlite3.Error as error:
        if str(error) == "interrupted":
            return Finding(
                name, State.WELL, f"opens; too large to examine in {STORE_CHECK_S:.0f} s"
            )
        verdict = str(error)
    if verdict == "ok":
        return Finding(name, State.WELL, "opens and is whole")
    return Finding(
        name, State.FAILED, f"{file}: {verdict}",
        "move it away (it is made anew), or put a backup in its place",
    )  # fmt: skip


def sockets_suffice(patient: Patient) -> Iterator[Finding]:
    """The system grants as many files and local ports as the checker wants sockets."""
    wanted = patient.settings.checking.max_sockets
    granted = _file_limit()
    if granted is not None:
        said = f"{granted:,} files, {wanted:,} sockets wanted"
        if granted < wanted + RESERVED_FILES:
            yield Finding(
                "file limit", State.WEAK, said,
                f"`ulimit -n {wanted + RESERVED_FILES}` (or LimitNOFILE=), or fewer "
                "checking.max_sockets; fewer sockets are used until then",
            )  # fmt: skip
        else:
            yield Finding("file limit", State.WELL, said)
    ports = _local_ports()
    if ports is not None:
        said = f"{ports:,} local ports, {wanted:,} sockets wanted"
        if ports < 2 * wanted:
            yield Finding(
                "local ports", State.WEAK, said,
                "widen net.ipv4.ip_local_port_range to twice the sockets or more: closed "
                "connections hold theirs for a minute",
            )  # fmt: skip
        else:
            yield Finding("local ports", State.WELL, said)


def _file_limit() -> int | None:
    try:
        import resource
    except ImportError:  # pragma: no cover - not a POSIX system
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def _local_ports() -> int | None:
    try:
        first, last = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()
    except (OSError, ValueError):
        return None
    return int(last) - int(first) + 1


def source_address_is_ours(patient: Patient) -> Iterator[Finding]:
    """The address to connect from, if one is set, belongs to this machine."""
    address = patient.settings.checking.source_address
    if address is None:
        return
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        yield Finding(
            "source address", State.FAILED, f"{address}: {error.strerror or error}",
            "give an address of this machine in checking.source_address, or none",
        )  # fmt: skip
    else:
        yield Finding("source address", State.WELL, f"{address} can be used")


def program_is_fast(patient: Patient) -> Iterator[Finding]:
    """Python, the event loop and the way in which sockets are watched."""
    yield Finding("python", State.WELL, f"{platform.python_version()} on {platform.system()}")
    has_epoll = hasattr(select, "epoll")
    if has_epoll or patient.settings.checking.backend == "selectors":
        yield Finding("sockets", State.WELL, "epoll" if has_epoll else "selectors, as it is set")
    elif patient.settings.checking.backend == "epoll":
        yield Finding("sockets", State.FAILED, "no epoll here", "set checking.backend to auto")
    else:
        yield Finding("sockets", State.WEAK, "no epoll here: selectors, at a part of the speed")
    if find_spec("uvloop") is not None:
        yield Finding("event loop", State.WELL, "uvloop")
    else:
        yield Finding("event loop", State.WEAK, "asyncio's own", "pip install uvloop")


def judges_are_named(patient: Patient) -> Iterator[Finding]:
    """A judge of the user's own is configured, and its key where its answers are signed."""
    judges, keys = patient.settings.judges, patient.settings.judge.public_keys
    if not judges:
        yield Finding(
            "judges", State.WEAK, "none of your own: public ones, slow, and their answers unsigned",
            "run `proxywell judge serve` on a small server, then set judges and judge.public_keys",
        )  # fmt: skip
    elif any(judge.startswith("proxywell:") for judge in judges) and not keys:
        yield Finding(
            "judges", State.WEAK, "a signing judge is named, but not its key: the first one seen "
            "is believed",
            "set judge.public_keys to what `proxywell judge serve` prints",
        )  # fmt: skip
    else:
        yield Finding("judges", State.WELL, f"{len(judges)} named")


def judges_answer(patient: Patient) -> Iterator[Finding]:
    """The user's own judges can be read, may be dialled, and answer directly within seconds.

    Public judges are not asked: an examination is no reason to spend their patience.
    """
    settings = patient.settings
    if not settings.judges:
        return
    network = settings.network
    guard = Guard(
        allow_private=network.allow_private, allow_service_ports=network.allow_service_ports
    )
    try:
        judges = Judges(
            settings.judges,
            settings.judge,
            network,
            guard,
            source_address=settings.checking.source_address,
        )
        own = asyncio.run(_meet(judges))
    except ProxywellError as error:
        yield Finding(
            "judges answer", State.FAILED, str(error), "correct judges, or mend the way to them"
        )
    else:
        seen = f"; they see us as {', '.join(sorted(own))}" if own else ""
        yield Finding(
            "judges answer", State.WELL, f"directly, within {JUDGE_PATIENCE_S:.0f} s{seen}"
        )


async def _meet(judges: Judges) -> frozenset[str]:
    try:
        await judges.start(time.monotonic() + JUDGE_PATIENCE_S)
        return judges.own_addresses
    finally:
        await judges.close()


CHECKS: tuple[Check, ...] = (
    settings_are_right,
    state_can_be_kept,
    stores_are_whole,
    sockets_suffice,
    source_address_is_ours,
    program_is_fast,
    judges_are_named,
    judges_answer,
    *doctor_services.CHECKS,
)


def examine(patient: Patient, checks: tuple[Check, ...] = CHECKS) -> list[Finding]:
    """Run all checks; one that breaks is itself a finding and stops no other."""
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(patient)
        except Exception as error:  # noqa: BLE001 - a bug in one check must not hide the others
            findings.append(
                Finding(
                    check.__name__.replace("_", " "), State.FAILED,
                    f"the check itself broke, {type(error).__name__}: {error}", "please report it",
                )
            )  # fmt: skip
    return findings


@click.command()
@output_option(Output.TABLE, Output.JSON)
@place_options
def doctor(config_file: Path | None, state_dir: Path | None, output: Output) -> None:
    """Examine settings, host and services; name each remedy.

    Exit status: 0 all well (limits worth knowing included), 1 something failed.
    """
    findings = examine(_patient(config_file, state_directory(state_dir), os.environ))
    show_object(findings, output, in_words)
    failed = any(finding.state is State.FAILED for finding in findings)
    raise SystemExit(SURROUNDINGS_FAILED if failed else DONE)


def in_words(findings: list[Finding]) -> str:
    """Lay findings out, remedies below what they mend, and count them."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state.value:<7} {finding.check:<16} {finding.said}")
        if finding.remedy is not None:
            lines.append(f"{'':<24} -> {finding.remedy}")
    counts = {state: sum(1 for one in findings if one.state is state) for state in State}
    lines.append(", ".join(f"{count} {state.value}" for state, count in counts.items()))
    return "\n".join(lines)


def _patient(config_file: Path | None, state_dir: Path, environ: Mapping[str, str]) -> Patient:
    try:
        return Patient(load(config_file, {}, environ).settings, None, state_dir)
    except ProxywellError as error:
        return Patient(Settings(), str(error), state_dir)
