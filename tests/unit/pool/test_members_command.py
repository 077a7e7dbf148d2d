"""The commands about members: what they print, where, and with which status they end."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from proxywell import app
from proxywell.cli.main import program
from proxywell.config.schema import PoolSettings, Settings
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Protocol
from proxywell.model.member import PoolMember
from proxywell.model.verdict import Anonymity
from proxywell.pool.pool import Pool
from proxywell.refresh.poison import PoisonMemory
from tests.pool_makers import candidate, endpoint, failed, passed

Run = Callable[..., tuple[int, str, str]]
BOTH = (Protocol.CONNECT, Protocol.HTTP)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line on a state directory of its own."""
    monkeypatch.chdir(tmp_path)
    for place in ("CONFIG", "STATE"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))

    def go(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            program([*arguments, "--state", str(tmp_path / "state")])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return go


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A fresh, a cooling and a private member, and a candidate that never worked."""
    state = tmp_path / "state"
    now_s = time.time()
    secret = endpoint(9, user="me", password="hunter2")
    with Pool.open(state, PoolSettings()) as pool:
        pool.record(
            "a",
            1,
            [
                (0, candidate(1, "list"), passed(endpoint(1), at_s=now_s, latency_ms=900.0)),
                (1, candidate(2), passed(endpoint(2), at_s=now_s, protocols=BOTH)),
                (2, candidate(3), failed(endpoint(3), at_s=now_s)),
                (
                    3,
                    Candidate(secret),
                    passed(secret, at_s=now_s, anonymity=Anonymity.ANONYMOUS, latency_ms=100.0),
                ),
            ],
        )
        pool.record("b", 1, [(0, candidate(2), failed(endpoint(2), at_s=now_s + 1))])
    return state


def urls(text: str) -> list[str]:
    return [row["proxy"] for row in json.loads(text)]


def test_an_empty_pool_is_an_empty_list_and_nothing_random(run: Run, tmp_path: Path) -> None:
    assert run("list", "--output", "json")[:2] == (0, "[]\n")
    status, out, err = run("random")
    assert (status, out) == (4, "")
    assert err == "proxywell: the pool is empty; `proxywell refresh` fills it\n"
    assert not (tmp_path / "state").exists()  # who only looks makes nothing


@pytest.mark.usefixtures("filled")
def test_list_tells_the_state_of_every_member_and_txt_holds_only_what_works(run: Run) -> None:
    status, out, _ = run("list", "--output", "json")
    assert status == 0
    assert [(row["proxy"], row["state"], row["working"]) for row in json.loads(out)] == [
        ("socks5://me:hunter2@1.0.0.9:8080", "fresh", True),
        ("socks5://1.0.0.1:8080", "fresh", True),
        ("http://1.0.0.2:8080", "cooling", False),
    ]
    txt = "socks5://me:hunter2@1.0.0.9:8080\nsocks5://1.0.0.1:8080\n"
    assert run("list", "--output", "txt")[1] == txt
    assert len(run("list", "--output", "jsonl", "--fresh")[1].splitlines()) == 2
    rows = list(csv.DictReader(io.StringIO(run("list", "--output", "csv")[1])))
    assert [row["state"] for row in rows] == ["fresh", "fresh", "cooling"]
    assert "1.0.0.2" in run("list")[1]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        (("--protocol", "http"), ["1.0.0.2"]),
        (("--protocol", "SOCKS5, socks4"), ["1.0.0.9", "1.0.0.1"]),
        (("--anonymity", "elite"), ["1.0.0.1", "1.0.0.2"]),
        (("--anonymity", "elite,anonymous", "--count", "1"), ["1.0.0.9"]),
        (("--max-latency-ms", "899"), ["1.0.0.9", "1.0.0.2"]),
        (("--country", "de"), []),
        (("--target", "shop"), ["1.0.0.9", "1.0.0.1", "1.0.0.2"]),
    ],
)
def test_filters_leave_those_that_fit(run: Run, options: tuple[str, ...], hosts: list[str]) -> None:
    status, out, _ = run("list", "--output", "json", *options)
    assert status == 0
    assert [row["host"] for row in json.loads(out)] == hosts


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--protocol", "sock5"), "--protocol: no 'sock5'; did you mean socks5?"),
        (("--anonymity", "elit"), "--anonymity: no 'elit'; did you mean elite?"),
        (("--country", "Germany"), "'Germany' is no country code of two letters"),
        (("--max-latency-ms", "-1"), "-1"),
    ],
)
def test_a_wrong_filter_is_wrong_use(run: Run, options: tuple[str, ...], says: str) -> None:
    status, out, err = run("random", *options)
    assert (status, out) == (2, "")
    assert says in err


@pytest.mark.usefixtures("filled")
def test_random_prints_different_ones_and_says_when_there_are_no_more(run: Run) -> None:
    status, out, err = run("random", "--count", "5")
    assert status == 3
    assert sorted(out.split()) == ["socks5://1.0.0.1:8080", "socks5://me:hunter2@1.0.0.9:8080"]
    assert err == "proxywell: 2 of 5: no more fit\n"
    assert run("random", "--anonymity", "elite")[:2] == (0, "socks5://1.0.0.1:8080\n")
    status, out, err = run("random", "--protocol", "http")
    assert (status, out) == (4, "")
    assert err == "proxywell: none of 3 members fits: 1 failed the last check, 2 not http\n"


def test_verify_prints_only_what_passes_and_goes_on_to_others(
    run: Run, filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def checked(_: Settings, state_dir: Path, members: list[PoolMember]) -> list[PoolMember]:
        assert state_dir == filled
        asked.extend(member.host for member in members)
        return [member for member in members if member.host == "1.0.0.1"]

    monkeypatch.setattr(app, "verify_members", checked)
    assert run("random", "--verify")[:2] == (0, "socks5://1.0.0.1:8080\n")
    asked.clear()
    assert run("random", "--verify", "--count", "2")[0] == 3
    assert sorted(asked) == ["1.0.0.1", "1.0.0.9"]  # each one once
    status, out, err = run("random", "--verify", "--anonymity", "anonymous")
    assert (status, out) == (4, "")
    assert err == "proxywell: 1 chosen and checked anew, none of them works now\n"
    assert run("random", "--verify", "--country", "FR")[0] == 4


@pytest.mark.usefixtures("filled")
def test_explain_hides_credentials_unless_asked(run: Run) -> None:
    for output in ("table", "json"):
        assert "hunter2" not in run("explain", "1.0.0.9:8080", "--output", output)[1]
    assert "hunter2" in run("explain", "1.0.0.9:8080", "--with-credentials")[1]


@pytest.mark.usefixtures("filled")
def test_explain_tells_of_members_and_of_what_never_worked(run: Run) -> None:
    status, out, _ = run("explain", "socks5://1.0.0.1:8080", "--output", "json")
    told = json.loads(out)
    assert status == 0
    assert (told["kind"], told["state"], told["sources"]) == ("member", "fresh", ["list"])
    assert [step["name"] for step in told["score_steps"]][-1] == "score"
    assert told["history"][0]["origin"] == "job a"
    _, out, _ = run("explain", "1.0.0.3:8080")
    assert "never worked: checked once, rejected for connect_timeout; last by job a" in out
    _, out, _ = run("explain", "1.0.0.2:8080")
    assert "cooling: failed once since it last passed; the last time by connect_timeout" in out
    assert "lower times speed; selection draws in proportion to it" in out


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("command", ["explain", "freeze", "thaw"])
def test_an_unknown_proxy_is_wrong_use_and_the_nearest_is_named(run: Run, command: str) -> None:
    status, out, err = run(command, "1.0.0.3:8081")
    assert (status, out) == (2, "")
    assert (
        err == "proxywell: 1.0.0.3:8081 is not known; the nearest that is known is 1.0.0.3:8080\n"
    )
    assert run(command, "rubbish")[0] == 2


@pytest.mark.usefixtures("filled")
def test_freeze_and_thaw_work_and_work_twice(run: Run) -> None:
    for _ in range(2):
        assert run("freeze", "1.0.0.1:8080")[0] == 0
    assert run("random", "--anonymity", "elite")[0] == 4
    for _ in range(2):
        assert run("thaw", "1.0.0.1:8080")[0] == 0
    assert run("random", "--anonymity", "elite")[0] == 0
    status, _, err = run("freeze", "1.0.0.3:8080")
    assert status == 2
    assert err == "proxywell: 1.0.0.3:8080 is no member of the pool: it never worked\n"


@pytest.mark.usefixtures("filled")
def test_export_writes_beside_the_caller_and_reports(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("export", "--format", "squid", "--output", "json")
    assert status == 0
    assert json.loads(out)["members"] == 2
    assert (tmp_path / "proxies" / "squid.conf").exists()
    assert (tmp_path / "proxies" / "socks5.txt").read_text().split() == [
        "me:hunter2@1.0.0.9:8080",
        "1.0.0.1:8080",
    ]
    assert run("export", "--anonymity", "elite", "--out", "elsewhere")[1].startswith("1 member\n")
    assert run("export", "--format", "pdf")[0] == 2


@pytest.mark.usefixtures("filled")
def test_a_backup_is_a_state_that_opens_elsewhere(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    status, _, err = run("backup", "other/pool.sqlite")
    assert status == 0
    assert err.startswith("proxywell: other/pool.sqlite: ")
    assert run("backup", "other/pool.sqlite")[0] == 2
    with Pool.open(tmp_path / "other", PoolSettings(), read_only=True) as copy:
        assert len(copy.members()) == 3


@pytest.mark.usefixtures("filled")
def test_a_damaged_pool_is_one_sentence_and_status_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "state" / "pool.sqlite").write_bytes(b"not a database at all" * 500)
    for command in (["list"], ["random"], ["export"], ["explain", "1.0.0.1:1"], ["backup", "b"]):
        status, out, err = run(*command)
        assert (status, out) == (1, "")
        assert "is damaged" in err
        assert len(err.splitlines()) == 1


def test_explain_says_of_poison_why_there_is_no_verdict(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    memory = PoisonMemory(tmp_path / "state", 7 * 86_400.0)
    memory.remember([candidate(77)], job_id="20261101-080000-0a1b2c", now_s=time.time())
    memory.close()
    status, out, said = run("explain", endpoint(77).netloc)
    assert (status, out) == (2, "")
    assert f"{endpoint(77).netloc} has no verdict: it ended the workers" in said
    assert "in job 20261101-080000-0a1b2c" in said
    status, _, said = run("explain", endpoint(78).netloc)
    assert status == 2
    assert "is not known" in said
