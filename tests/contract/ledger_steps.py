"""Short forms of what a test of the ledger does: create, claim, submit, let time pass."""

from __future__ import annotations

from typing import TypeAlias

from msgspec.structs import replace

from proxywell.refresh.books import Claim, SubmitAnswer, Worker
from proxywell.refresh.ports import Ledger, NewJob
from proxywell.refresh.spans import items_of
from tests.contract.ledger_world import JOB, TERMS, Clock, blocks_of, settled

ONE, TWO = Worker("n1", "h1"), Worker("n1", "h2")
FAR = Worker("n2", "h3")
Home: TypeAlias = tuple[Ledger, Clock]


def create(ledger: Ledger, items: int = 9, **terms: float | None) -> None:
    agreed = replace(TERMS, **terms)
    job = NewJob(JOB, items, agreed, b"{}", 0.0)
    assert ledger.create(job, blocks_of(items, agreed.chunk_size))


def claim(ledger: Ledger, worker: Worker, token: str) -> Claim:
    answer = ledger.claim(JOB, worker, token)
    assert isinstance(answer, Claim), answer
    return answer


def submit(ledger: Ledger, held: Claim, items: list[int] | None = None) -> SubmitAnswer:
    told = settled(list(items_of(held.items)) if items is None else items)
    return ledger.submit(JOB, held.chunk_id, held.token, held.epoch, told)


def pass_time(home: Home, seconds: int, *, nodes: tuple[str, ...] = ("n1", "n2")) -> None:
    ledger, clock = home
    for _ in range(seconds):
        clock.now_s += 1.0
        for node in nodes:
            ledger.node_beat(node, "", term_s=3.75)
        ledger.tick(JOB)
