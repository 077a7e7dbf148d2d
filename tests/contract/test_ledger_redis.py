"""What only the ledger on a server can do: expire, be emptied, be shared by many machines."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from msgspec.structs import replace

from proxywell.errors import StateError, StoreAwayError, StoreDamagedError, UnknownJobError
from proxywell.model.report import GivenUpWhy
from proxywell.refresh import bookkeeping, closing
from proxywell.refresh import ledger as ledger_rules
from proxywell.refresh.bookkeeping import Bookkeeping
from proxywell.refresh.books import Beat, Claim, JobState, NoClaim, Settled
from proxywell.refresh.closing import LedgerRules
from proxywell.refresh.ledger import ChunkRules
from proxywell.refresh.ledgers import redis as redis_ledger_module
from proxywell.refresh.ledgers.redis import OF_A_JOB, RedisLedger, rule_book
from proxywell.refresh.ports import Block, NewJob
from tests.contract.ledger_steps import FAR, ONE, TWO, claim, create, submit
from tests.contract.ledger_world import (
    JOB,
    TERMS,
    Clock,
    Homes,
    all_chunks,
    blocks_of,
    redis_ledger,
)
from tests.services.redis_server import RedisServer

DAY_S = 86_400
LUA = Path(redis_ledger_module.__file__).parent


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(redis_server: RedisServer, clock: Clock) -> Iterator[RedisLedger]:
    one = redis_ledger(redis_server, clock)
    yield one
    one.close()


@pytest.fixture
def real(redis_server: RedisServer, request: pytest.FixtureRequest) -> Iterator[RedisLedger]:
    """On the server's own clock."""
    one = RedisLedger(redis_server.address(f"real{abs(hash(request.node.name))}"))
    yield one
    one.close()


def kept_s(server: RedisServer, ledger: RedisLedger) -> dict[str, int]:
    """Seconds that each key of the job has left; -1: for ever."""
    found = {name: int(server.call("TTL", ledger.key(JOB, name))) for name in OF_A_JOB}
    return {name: left for name, left in found.items() if left != -2}


def whole_hash(server: RedisServer, ledger: RedisLedger) -> dict[bytes, bytes]:
    flat = server.call("HGETALL", ledger.key(JOB, "job"))
    return dict(zip(flat[::2], flat[1::2], strict=True))


def work_a_little(ledger: RedisLedger) -> None:
    """So that every kind of key is there."""
    create(ledger, 12)
    held = claim(ledger, ONE, "a")
    ledger.beat(JOB, ONE, [Beat(held.chunk_id, "a", Settled((0, 1), (0, 1), b"v"))])
    claim(ledger, ONE, "b")
    ledger.expire(JOB, [(1, "b")])
    ledger.node_beat("n1", "", term_s=9)
    claim(ledger, TWO, "c")
    claim(ledger, TWO, "d")
    ledger.expire(JOB, [(2, "c")])


# --- how long keys live


def test_every_key_of_an_open_job_outlives_its_cap_and_a_week(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    work_a_little(ledger)
    kept = kept_s(redis_server, ledger)
    assert set(kept) >= set(OF_A_JOB) - {"suspects"}
    assert min(kept.values()) > TERMS.cap_s + 7 * DAY_S - 60
    assert max(kept.values()) <= TERMS.cap_s + 7 * DAY_S


def test_a_tick_puts_off_the_expiry_so_that_no_ledger_goes_under_a_running_job(
    redis_server: RedisServer, ledger: RedisLedger, clock: Clock
) -> None:
    work_a_little(ledger)
    for name in OF_A_JOB:
        redis_server.call("EXPIRE", ledger.key(JOB, name), 5)
    for _ in range(62):
        clock.now_s += 1
        ledger.tick(JOB)
    assert min(kept_s(redis_server, ledger).values()) > 7 * DAY_S


def test_a_key_that_is_made_anew_expires_as_well(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 6)
    for token in ("a", "b"):  # `lease` and `held` are gone in between
        held = claim(ledger, ONE, token)
        assert -1 not in kept_s(redis_server, ledger).values()
        ledger.release(JOB, held.chunk_id, token)
    assert -1 not in kept_s(redis_server, ledger).values()


def test_a_done_job_keeps_its_verdicts_an_hour_and_its_line_a_month(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 3)
    submit(ledger, claim(ledger, ONE, "a"))
    assert min(kept_s(redis_server, ledger).values()) > 6 * DAY_S, "nobody has collected it"
    ledger.fin_claim(JOB, "x")
    ledger.fin_commit(JOB, "x", b"{}")
    kept = kept_s(redis_server, ledger)
    assert kept.pop("job") > 29 * DAY_S
    assert max(kept.values()) <= 3_600
    assert min(kept.values()) > 3_500


def test_a_job_that_could_not_be_finalised_keeps_its_verdicts_a_week(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 3)
    submit(ledger, claim(ledger, ONE, "a"))
    for token in "xyz":
        ledger.fin_claim(JOB, token)
        ledger.fin_fail(JOB, token, "disk full")
    assert ledger.status(JOB).state is JobState.DONE
    assert min(kept_s(redis_server, ledger).values()) > 6 * DAY_S


# --- which jobs there are


def test_open_jobs_are_those_that_are_not_done_and_gone_ones_are_forgotten(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    for at, name in enumerate(["done", "closed", "open", "gone"]):
        ledger.create(NewJob(name, 3, TERMS, b"", float(at)), blocks_of(3, 3))
    for name in ("done", "closed"):
        ledger.cancel(name, GivenUpWhy.CANCELLED, "cancelled")
    ledger.fin_claim("done", "x")
    ledger.fin_commit("done", "x", b"")
    redis_server.call("DEL", ledger.key("gone", "job"))
    assert ledger.open_jobs() == ["open", "closed"]
    assert [job.job_id for job in ledger.jobs()] == ["open", "closed", "done"]
    assert redis_server.call("ZSCORE", f"{ledger.address.prefix}:open", "gone") is None


def test_many_jobs_are_listed_whole(ledger: RedisLedger) -> None:
    names = [f"j{at:03}" for at in range(250)]
    for at, name in enumerate(names):
        ledger.create(NewJob(name, 1, TERMS, b"", float(at)), blocks_of(1, 1))
    assert ledger.open_jobs() == [job.job_id for job in ledger.jobs()] == names[::-1]


def test_a_server_that_was_emptied_knows_no_job(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 3)
    for key in redis_server.call("KEYS", f"{ledger.address.prefix}:*"):
        if not key.endswith(b":clock"):
            redis_server.call("DEL", key)
    with pytest.raises(UnknownJobError):
        ledger.tick(JOB)
    assert ledger.jobs() == []


# --- creation in stages


def test_a_creation_that_never_ended_left_no_job_and_nothing_else(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    def broken() -> Iterator[Block]:
        yield from blocks_of(900, 1)
        raise OSError("the list went away")

    with pytest.raises(OSError, match="went away"):
        ledger.create(NewJob(JOB, 900, TERMS, b"{}", 0.0), broken())
    with pytest.raises(UnknownJobError):
        ledger.status(JOB)
    assert redis_server.call("KEYS", f"{ledger.address.prefix}:*stage*") == []


def test_a_stage_expires_by_itself_and_is_not_seen(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    seen: list[int] = []

    def watched() -> Iterator[Block]:
        yield from blocks_of(900, 1)
        keys = redis_server.call("KEYS", f"{ledger.address.prefix}:*stage*")
        seen.extend(int(redis_server.call("TTL", key)) for key in keys)
        assert ledger.jobs() == []

    ledger.create(NewJob(JOB, 900, TERMS, b"{}", 0.0), watched())
    assert len(seen) == 4
    assert 3_500 < min(seen) <= max(seen) <= 3_600
    assert ledger.status(JOB).chunks == 900


def test_a_stage_that_was_lost_on_the_way_makes_no_job_with_holes(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    def emptied() -> Iterator[Block]:
        yield from blocks_of(500, 1)
        for key in redis_server.call("KEYS", f"{ledger.address.prefix}:*stage*"):
            redis_server.call("DEL", key)
        yield Block(500, 501, b"last")

    with pytest.raises(StoreAwayError, match="while it was being created"):
        ledger.create(NewJob(JOB, 501, TERMS, b"{}", 0.0), emptied())
    assert ledger.jobs() == []
    assert ledger.create(NewJob(JOB, 3, TERMS, b"{}", 0.0), blocks_of(3, 3))


# --- who else is there


def test_a_job_of_another_version_is_left_alone_and_both_versions_are_named(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 3)
    redis_server.call("HSET", ledger.key(JOB, "job"), "version", 99)
    before = whole_hash(redis_server, ledger)
    steps = (
        lambda: ledger.claim(JOB, ONE, "a"),
        lambda: ledger.tick(JOB),
        lambda: ledger.cancel(JOB, GivenUpWhy.CANCELLED, "cancelled"),
        lambda: ledger.create(NewJob(JOB, 3, TERMS, b"{}", 0.0, epoch=9), blocks_of(3, 3)),
    )
    for step in steps:
        with pytest.raises(StateError, match=r"ledger version 99, this one knows 1.*same version"):
            step()
    ledger.sweep(1e12)
    assert ledger.jobs() == []
    assert whole_hash(redis_server, ledger) == before
    assert redis_server.call("KEYS", f"{ledger.address.prefix}:*stage*") == []


@pytest.mark.parametrize("name", [*OF_A_JOB, "open", "jobs", "nodes"])
def test_a_key_of_another_type_is_named_and_nothing_is_done(
    redis_server: RedisServer, ledger: RedisLedger, name: str
) -> None:
    create(ledger, 6)
    claim(ledger, ONE, "a")
    before = ledger.status(JOB), all_chunks(ledger)
    key = ledger.key(JOB, name) if name in OF_A_JOB else f"{ledger.address.prefix}:{name}"
    if redis_server.call("EXISTS", key):
        redis_server.call("RENAME", key, f"{key}:aside")
    redis_server.call("SET", key, "somebody else's")
    with pytest.raises(StateError, match=r"is a string where proxywell keeps a") as raised:
        ledger.claim(JOB, ONE, "b")
    assert key in str(raised.value)
    assert not isinstance(raised.value, StoreAwayError)
    redis_server.call("DEL", key)
    if redis_server.call("EXISTS", f"{key}:aside"):
        redis_server.call("RENAME", f"{key}:aside", key)
    assert (ledger.status(JOB), all_chunks(ledger)) == before


def test_what_cannot_be_read_is_said_and_no_other_job_suffers(
    redis_server: RedisServer, ledger: RedisLedger
) -> None:
    create(ledger, 6)
    submit(ledger, claim(ledger, ONE, "a"))
    ledger.create(NewJob("other", 3, TERMS, b"{}", 0.0), blocks_of(3, 3))
    key = ledger.key
    junk: list[tuple[list[str | int], Callable[[], object]]] = [
        (["HSET", key(JOB, "chunk"), 1, "\xc1"], lambda: ledger.claim(JOB, ONE, "b")),
        (["LSET", key(JOB, "out"), 0, "junk"], lambda: ledger.parts(JOB, 0, 9)),
        (["XADD", key(JOB, "ev"), "*", "a", "b"], lambda: ledger.events(JOB, 0, 99)),
        (["HSET", key(JOB, "job"), "line", "junk"], lambda: ledger.tick(JOB)),
    ]
    for command, step in junk:
        redis_server.call(*command)
        with pytest.raises(StoreDamagedError, match="cannot be read; another program"):
            step()
    assert isinstance(ledger.claim("other", ONE, "a"), Claim)
    assert [job.job_id for job in ledger.jobs()] == ledger.open_jobs() == ["other"]


def test_two_prefixes_on_one_server_do_not_meet(redis_server: RedisServer, clock: Clock) -> None:
    one, other = redis_ledger(redis_server, clock), redis_ledger(redis_server, clock)
    create(one, 3)
    one.node_beat("n1", "", term_s=9)
    assert other.jobs() == []
    assert other.nodes(JOB) == frozenset()
    one.close()
    other.close()


# --- figures


FOURTEEN_DIGITS = """
    local packed = books.packed_line
    function books.packed_line()
      for name, value in pairs(job) do
        if type(value) == 'number' then job[name] = tonumber(tostring(value)) end
      end
      return packed()
    end"""


def carry_at_real_instants(server: RedisServer, defect: str = "") -> None:
    """Some steps at instants as they are in life, in both books; they are compared to the bit."""
    homes = Homes(items=9, server=server, defect=defect)
    homes.clock.now_s = 1_790_000_000.123457
    try:
        homes.begin_epoch(())
        for token, passed_s in (("a", 0.100001), ("b", 1 / 3), ("c", 2.000003)):
            held = homes.claim(ONE, token)
            assert held is not None
            homes.clock.now_s += passed_s
            homes.all(lambda home, held=held: submit(home, held))  # type: ignore[misc] # kept
            homes.tick()
            homes.check()
    finally:
        homes.close()


def test_figures_are_pythons_to_the_last_bit(redis_server: RedisServer) -> None:
    carry_at_real_instants(redis_server)
    with pytest.raises(AssertionError, match="homes disagree"):
        carry_at_real_instants(redis_server, FOURTEEN_DIGITS)


# --- the server's own clock, and many at a time


def test_leases_end_by_the_servers_own_clock(real: RedisLedger) -> None:
    terms = replace(TERMS, lease_s=0.2)
    real.create(NewJob(JOB, 3, terms, b"{}", 0.0), blocks_of(3, 3))
    claim(real, ONE, "a")
    end = threading.Event()
    for _ in range(200):
        if real.tick(JOB).job.ready:
            break
        end.wait(0.02)
    job = real.status(JOB)
    assert (job.ready, job.rescued) == (1, 1)
    assert 1.7e9 < job.created_s < 4e9, "seconds since the epoch"


def test_claims_from_many_connections_never_give_a_chunk_twice(real: RedisLedger) -> None:
    create(real, 60, chunk_size=1)
    taken: list[Claim] = []

    def work(number: int) -> None:
        mine = RedisLedger(real.address)
        serial = 0
        while isinstance(held := mine.claim(JOB, ONE, f"{number}/{serial}"), Claim):
            taken.append(held)
            serial += 1
        assert held is NoClaim.EMPTY
        mine.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(held.chunk_id for held in taken) == list(range(60))


def test_only_the_latest_events_are_kept_and_their_numbers_go_on(ledger: RedisLedger) -> None:
    create(ledger, 3)
    for serial in range(6_000):
        held = claim(ledger, FAR, f"t{serial}")
        ledger.release(JOB, held.chunk_id, held.token)
    events = ledger.events(JOB, 0, 100_000)
    assert 10_000 <= len(events) < 10_500
    assert events[-1].seq == ledger.status(JOB).events == 12_001


# --- the two books


def test_the_rule_book_is_whole() -> None:
    text = rule_book().text
    chapters = sorted(LUA.glob("*.lua"))
    assert len(chapters) == 7
    assert all(path.read_text(encoding="utf-8") in text for path in chapters)


@pytest.mark.parametrize(
    ("module", "book"),
    [(bookkeeping, Bookkeeping), (ledger_rules, ChunkRules), (closing, LedgerRules)],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_every_rule_and_figure_has_its_namesake_in_lua(module: ModuleType, book: type) -> None:
    name = module.__name__.rpartition(".")[2]
    text = (LUA / f"{name}.lua").read_text(encoding="utf-8")
    rules = {rule for rule in vars(book) if not rule.startswith("__")}
    assert set(re.findall(r"^function rules\.(\w+)", text, re.MULTILINE)) == rules
    told = dict(re.findall(r"^local ([A-Z_]+) = ([-\d.]+)", text, re.MULTILINE))
    figures = {
        figure: value
        for figure, value in vars(module).items()
        if figure.isupper() and isinstance(value, int | float)
    }
    assert figures
    for figure, value in figures.items():
        if figure in told:
            assert float(told[figure]) == value, figure
    assert set(told) <= set(figures)
