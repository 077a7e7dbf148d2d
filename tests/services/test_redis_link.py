"""What a Redis that is unwell, closed, foreign or none answers, as a user reads it.

Every server here is real, private and on loopback; each sentence names the place without its
password and says what to do. StoreAwayError is what waiting can mend, and only that.
"""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxywell.config.secret import Secret
from proxywell.errors import StateError, StoreAwayError
from proxywell.refresh.books import JobState, NoClaim, SubmitAnswer
from proxywell.refresh.ledgers.redis import RedisLedger, open_redis_ledger
from proxywell.refresh.ledgers.redis_address import RedisAddress
from proxywell.refresh.ledgers.redis_link import Link
from proxywell.refresh.ledgers.redis_troubles import PERMISSIONS
from tests.contract.ledger_steps import ONE, claim, create, submit
from tests.contract.ledger_world import JOB
from tests.services.redis_server import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as one:
        yield one


def address_of(url: str, *, answer_s: float = 2.0) -> RedisAddress:
    return RedisAddress.parse(Secret(url), answer_s=answer_s)


def refusal_of(address: RedisAddress) -> StateError:
    """What opening says; nothing in it gives the password away."""
    with pytest.raises(StateError) as raised:
        open_redis_ledger(address)
    said = str(raised.value)
    assert "hunter2" not in said
    assert address.shown.removesuffix("/0") in said
    return raised.value


def waits(error: StateError) -> bool:
    return isinstance(error, StoreAwayError)


# --- who refuses us


def test_a_wrong_password_a_missing_one_and_one_too_many_are_three_sentences() -> None:
    with RedisServer(tcp=True, password="right") as closed:
        place = f"127.0.0.1:{closed.port}"
        wrong = refusal_of(address_of(f"redis://:hunter2@{place}"))
        assert "does not take this user and password" in str(wrong)
        missing = refusal_of(address_of(f"redis://{place}"))
        assert "wants a password and redis.url has none" in str(missing)
        assert not waits(wrong)
        assert not waits(missing)
        open_redis_ledger(closed.address()).close()


def test_a_password_that_nobody_asked_for_is_said(server: RedisServer) -> None:
    error = refusal_of(address_of(server.url.replace("unix://", "unix://:hunter2@")))
    assert "has no password" in str(error)
    assert not waits(error)


def test_a_user_without_permission_is_told_the_line_that_gives_it(server: RedisServer) -> None:
    server.call("ACL", "SETUSER", "well", "on", ">hunter2", "~proxywell*", "+@connection")
    address = address_of(server.url.replace("unix://", "unix://well:hunter2@"))
    error = refusal_of(address)
    assert not waits(error)
    line = str(error).partition("ACL SETUSER ")[2].split()
    server.call("ACL", "SETUSER", *line)
    ledger = open_redis_ledger(address)
    carry_through(ledger)
    ledger.close()


@pytest.mark.parametrize("lacking", ["evalsha", "script|load", "multi", "brpop", "sadd", "zadd"])
def test_each_permission_that_lacks_is_found_at_once(server: RedisServer, lacking: str) -> None:
    given = [*PERMISSIONS.split(), f"-{lacking}"]
    server.call("ACL", "SETUSER", "well", "on", ">pw", "~proxywell*", *given)
    error = refusal_of(address_of(server.url.replace("unix://", "unix://well:pw@")))
    assert "does not let user well" in str(error)
    assert not waits(error)
    assert "+@transaction" in str(error)


def test_that_line_gives_no_more_than_data_below_the_prefix(server: RedisServer) -> None:
    server.call("ACL", "SETUSER", "well", "on", ">pw", "~proxywell*", *PERMISSIONS.split())
    link = Link(address_of(server.url.replace("unix://", "unix://well:pw@")))
    for command in (["GET", "other"], ["CONFIG", "GET", "*"], ["FLUSHALL"], ["SCRIPT", "FLUSH"]):
        with pytest.raises(StateError, match="does not let user well"):
            link.call(*command)
    link.close()


def test_a_database_that_is_not_there_is_said() -> None:
    with RedisServer(tcp=True, options=("--databases", "1")) as small:
        error = refusal_of(address_of(f"redis://127.0.0.1:{small.port}/7"))
        assert "no database 7" in str(error)
        assert not waits(error)


# --- TLS


def test_a_server_that_speaks_tls_only_is_said_with_the_right_scheme() -> None:
    with RedisServer(tls=True) as closed:
        error = refusal_of(address_of(f"redis://127.0.0.1:{closed.port}"))
        assert "speaks TLS only; write rediss://" in str(error)
        assert not waits(error)
        carry_through(open_redis_ledger(closed.address()))


def test_a_certificate_that_is_not_trusted_is_said_with_the_option() -> None:
    with RedisServer(tls=True) as closed:
        error = refusal_of(address_of(f"rediss://127.0.0.1:{closed.port}"))
        assert "not trusted" in str(error)
        assert "ssl_ca_certs=FILE" in str(error)
        missing = f"rediss://127.0.0.1:{closed.port}?ssl_ca_certs=/no/such/file"
        with pytest.raises(StateError, match="cannot be read: /no/such/file"):
            open_redis_ledger(address_of(missing))


def test_a_server_without_tls_is_said_with_the_right_scheme() -> None:
    with RedisServer(tcp=True) as plain:
        error = refusal_of(address_of(f"rediss://127.0.0.1:{plain.port}"))
        assert "does not speak TLS; write redis://" in str(error)
        assert not waits(error)


# --- who is not there, or is somebody else


def test_nobody_there_may_come_back(tmp_path: Path) -> None:
    with RedisServer(tcp=True) as gone:
        place = f"127.0.0.1:{gone.port}"
    for url in (f"redis://{place}", f"rediss://{place}", f"unix://{tmp_path}/none"):
        error = refusal_of(address_of(url))
        assert waits(error)
        assert "cannot be reached" in str(error)


def test_a_web_server_is_not_redis() -> None:
    with listening(http.server.BaseHTTPRequestHandler) as port:
        error = refusal_of(address_of(f"redis://:hunter2@127.0.0.1:{port}"))
        assert "is not Redis" in str(error)
        assert not waits(error)


def test_a_server_that_only_listens_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun_s = time.monotonic()
        port = silent.getsockname()[1]
        error = refusal_of(address_of(f"redis://127.0.0.1:{port}", answer_s=0.3))
        assert waits(error)
        assert "did not answer within 0.3 s" in str(error)
        assert time.monotonic() - begun_s < 3


# --- who is ours and unwell


def test_a_frozen_server_costs_the_time_out_and_no_answer_is_mixed_up(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address(answer_s=0.3))
    create(ledger, 3)
    server.pause()
    begun_s = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreAwayError, match=r"did not answer within 0\.3 s"):
            ledger.status(JOB)
    assert time.monotonic() - begun_s < 5
    server.resume()
    assert ledger.spec(JOB) == b"{}", "the answer to another call"
    assert ledger.summary(JOB) is None
    ledger.close()


def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path) -> None:
    slow = ("--loading-process-events-interval-bytes", "1024", "--key-load-delay", "10000")
    with RedisServer(tmp_path, options=slow) as server:
        for key in range(500):
            server.call("SET", f"k{key}", str(key) * 500)
        server.call("SAVE")
        server.stop()
        server.start(wait=False)
        said, end_s = "", time.monotonic() + 20
        while "loading" not in said and time.monotonic() < end_s:
            try:
                open_redis_ledger(server.address()).close()
            except StoreAwayError as error:
                said = str(error)
        assert "is still loading its data" in said


def test_a_full_server_is_said_and_the_step_can_be_repeated(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 3)
    held = claim(ledger, ONE, "a")
    server.call("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(StoreAwayError, match="is full: raise its maxmemory"):
        submit(ledger, held)
    server.call("CONFIG", "SET", "maxmemory", 0)
    job = ledger.status(JOB)
    assert (job.checked, job.running, job.parts) == (0, 1, 0), "half a step was done"
    assert submit(ledger, held) is SubmitAnswer.CLOSED
    ledger.close()


def test_a_replica_takes_no_writes_and_says_so(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 3)
    server.call("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StoreAwayError, match="is a replica that takes no writes"):
        ledger.claim(JOB, ONE, "a")
    assert ledger.status(JOB).ready == 1
    server.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    with pytest.raises(StoreAwayError, match="lost its primary"):
        ledger.status(JOB)
    server.call("REPLICAOF", "NO", "ONE")
    claim(ledger, ONE, "a")
    ledger.close()


def test_a_server_that_cannot_save_takes_no_writes_and_says_so() -> None:
    with RedisServer(options=("--enable-protected-configs", "yes")) as server:
        cannot_save(server)


def cannot_save(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 3)
    gone = server.directory / "gone"
    gone.mkdir()
    server.call("CONFIG", "SET", "dir", str(gone), "save", "3600 1")
    shutil.rmtree(gone)
    server.call("BGSAVE")
    end_s = time.monotonic() + 10
    said = ""
    while "disk" not in said and time.monotonic() < end_s:
        try:
            ledger.node_beat("n", "", term_s=1)
        except StoreAwayError as error:
            said = str(error)
    assert "cannot save to its disk" in said
    ledger.close()


def test_a_server_held_by_another_script_is_waited_for(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    server.call("CONFIG", "SET", "lua-time-limit", 20)
    other = Link(server.address(answer_s=10))
    caught: list[Exception] = []
    thread = threading.Thread(target=lambda: caught.append(_raised(other, "while true do end")))
    thread.start()
    end_s = time.monotonic() + 5
    said = ""
    while "busy" not in said and time.monotonic() < end_s:
        try:
            ledger.probe()
        except StoreAwayError as error:
            said = str(error)
    server.call("SCRIPT", "KILL")
    thread.join(5)
    assert "is busy with another program's script" in said
    assert caught
    ledger.probe()
    ledger.close()
    other.close()


# --- connections and scripts that come and go


def test_a_connection_that_was_closed_in_the_meantime_costs_nothing(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 3)
    server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert ledger.tick(JOB).job.ready == 1
    ledger.close()


def test_a_claim_is_not_sent_twice_by_itself(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 9)
    server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(StoreAwayError, match="cannot be reached"):
        ledger.claim(JOB, ONE, "a")
    claim(ledger, ONE, "a")
    assert ledger.status(JOB).running == 1
    ledger.close()


def test_scripts_that_were_flushed_are_given_to_the_server_again(server: RedisServer) -> None:
    ledger = open_redis_ledger(server.address())
    create(ledger, 3)
    server.call("SCRIPT", "FLUSH")
    claim(ledger, ONE, "a")
    ledger.close()


def test_a_restart_on_its_file_keeps_the_books() -> None:
    with RedisServer(aof=True) as server:
        ledger = open_redis_ledger(server.address())
        create(ledger, 6)
        held = claim(ledger, ONE, "a")
        server.kill()
        with pytest.raises(StoreAwayError):
            ledger.status(JOB)
        server.start()
        assert submit(ledger, held) is SubmitAnswer.OK
        carry_on(ledger)
        ledger.close()


def carry_through(ledger: RedisLedger) -> None:
    """Every kind of step, to the end of a job."""
    create(ledger, 9)
    ledger.node_beat("n1", "", term_s=5)
    carry_on(ledger)
    ledger.fin_claim(JOB, "f")
    ledger.fin_beat(JOB, "f")
    ledger.fin_commit(JOB, "f", b"{}")
    assert ledger.status(JOB).state is JobState.DONE
    assert ledger.events(JOB, 0, 100)
    assert ledger.parts(JOB, 0, 100)
    assert ledger.blocks(JOB, (0, 9))
    assert ledger.open_jobs() == []
    ledger.sweep(time.time())


def carry_on(ledger: RedisLedger) -> None:
    serial = 0
    while ledger.tick(JOB).job.state is JobState.OPEN:
        serial += 1
        held = ledger.claim(JOB, ONE, f"t{serial}")
        assert not isinstance(held, NoClaim)
        submit(ledger, held)


def _raised(link: Link, script: str) -> Exception:
    try:
        link.call("EVAL", script, 0)
    except StateError as error:
        return error
    raise AssertionError("the script ended by itself")


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    quiet = type("Quiet", (handler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(5)
