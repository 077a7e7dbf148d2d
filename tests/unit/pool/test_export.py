"""What the exported files hold, to the byte, and that each is whole or not there."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path

import msgspec
import pytest

from proxywell.errors import StateError, UsageError
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.member import MemberState, PoolMember
from proxywell.model.verdict import Anonymity, Verdict
from proxywell.pool import export as exporting
from proxywell.pool.export import export
from proxywell.pool.formats import ALWAYS, as_csv, as_json, as_proxychains, as_squid
from tests.pool_makers import passed

BOTH = (Protocol.CONNECT, Protocol.HTTP)
GOLDEN = Path(__file__).parent / "golden"


def member(
    whom: Endpoint,
    protocols: tuple[Protocol, ...],
    *,
    state: MemberState = MemberState.FRESH,
    country: str | None = None,
    sources: tuple[str, ...] = (),
) -> PoolMember:
    verdict = passed(whom, protocols=protocols, anonymity=Anonymity.ELITE)
    return PoolMember(
        **{name: getattr(verdict, name) for name in Verdict.__struct_fields__},
        score=0.7312,
        times_checked=4,
        times_passed=3,
        last_ok_at=verdict.checked_at,
        country=country,
        asn=64500,
        sources=sources,
        state=state,
    )


MEMBERS = [
    member(Endpoint("1.0.0.1", 8080), BOTH, country="DE", sources=("list-a", "list-b")),
    member(Endpoint("1.0.0.2", 3128), (Protocol.HTTP,)),
    member(Endpoint("1.0.0.3", 3128), (Protocol.CONNECT,)),
    member(Endpoint("1.0.0.4", 1080), (Protocol.SOCKS5, Protocol.SOCKS4)),
    member(Endpoint("1.0.0.5", 1080), (Protocol.SOCKS4A,)),
    member(Endpoint("2001:db8::1", 1080), (Protocol.SOCKS5,)),
    member(Endpoint("1.0.0.6", 1080), (Protocol.SOCKS5,), state=MemberState.COOLING),
    member(Endpoint("1.0.0.7", 1080), (Protocol.SOCKS5,), state=MemberState.BARRED),
]
ALL_FILES = [*ALWAYS, "proxychains.conf", "squid.conf", "clash.yaml"]


@pytest.mark.parametrize("name", ALL_FILES)
def test_every_file_is_what_the_golden_one_is(name: str, tmp_path: Path) -> None:
    export(MEMBERS, tmp_path, ["proxychains", "squid", "clash"])
    assert (tmp_path / name).read_text() == (GOLDEN / name).read_text()


def test_only_what_may_be_handed_out_is_exported(tmp_path: Path) -> None:
    report = export(MEMBERS, tmp_path)
    assert report.members == 6
    everything = "".join(file.read_text() for file in tmp_path.iterdir())
    assert "1.0.0.6" not in everything
    assert "1.0.0.7" not in everything
    assert [Path(file.path).name for file in report.files] == list(ALWAYS)


def test_json_reads_back_as_the_members_that_went_in() -> None:
    assert msgspec.json.decode(as_json(MEMBERS), type=list[PoolMember]) == MEMBERS
    assert json.loads(as_json([])) == []


def test_a_cell_is_never_a_formula_and_controls_are_written_out() -> None:
    bad = member(
        Endpoint("1.0.0.1", 1), BOTH, sources=('=cmd|"/c calc"!A1', "\x1b]0;x\x07", "a\r\nb,c")
    )
    (row,) = csv.DictReader(io.StringIO(as_csv([bad])))
    assert row["sources"].startswith("'=cmd")
    assert "\x1b" not in as_csv([bad])
    assert "\x1b" not in as_json([bad])
    assert len(as_csv([bad]).splitlines()) == 2
    assert row["host"] == "1.0.0.1"


def test_files_with_credentials_are_for_their_owner_only(tmp_path: Path) -> None:
    export(MEMBERS, tmp_path)
    assert stat.S_IMODE((tmp_path / "all.txt").stat().st_mode) & 0o044
    secret = member(Endpoint("1.0.0.9", 8080, "me", "p@ss w"), BOTH)
    report = export([secret], tmp_path, ["squid", "clash", "proxychains"])
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in tmp_path.iterdir())
    assert all(file.private for file in report.files)
    assert (tmp_path / "all.txt").read_text() == "http://me:p%40ss%20w@1.0.0.9:8080\n"
    assert 'password: "p@ss w"' in (tmp_path / "clash.yaml").read_text()


def test_credentials_that_do_not_fit_a_line_are_left_out_not_torn() -> None:
    torn = member(Endpoint("1.0.0.9", 8080, "me", "a b\nnever_direct deny all"), BOTH)
    assert "1.0.0.9" not in as_squid([torn])
    assert "1.0.0.9" not in as_proxychains([torn])
    percent = member(Endpoint("1.0.0.9", 8080, "me", "50%off"), BOTH)
    assert "login=me:50%%off" in as_squid([percent])


def test_a_link_in_place_of_a_file_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / "all.txt").symlink_to(precious)
    (out / ".all.txt.new").symlink_to(precious)
    export(MEMBERS, out)
    assert precious.read_text() == "precious"
    assert not (out / "all.txt").is_symlink()


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".all.txt.new").write_text("half")
    export(MEMBERS, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(ALWAYS)


def test_a_failing_disk_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(MEMBERS[:1], tmp_path)
    old = (tmp_path / "all.txt").read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match=r"all\.txt cannot be written: No space left"):
        export(MEMBERS, tmp_path)
    assert (tmp_path / "all.txt").read_text() == old
    assert not (tmp_path / ".all.txt.new").exists()


def test_a_file_in_place_of_the_directory_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no directory"):
        export(MEMBERS, tmp_path / "file")
    with pytest.raises(UsageError, match="no format 'pdf'; there are proxychains, squid, clash"):
        export(MEMBERS, tmp_path / "out", ["pdf"])


def test_a_second_export_into_the_same_directory_waits_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "WAIT_S", 0.0)
    with (
        exporting._held(tmp_path),
        pytest.raises(StateError, match="is being written by another export"),
    ):
        export(MEMBERS, tmp_path)
    export(MEMBERS, tmp_path)
