"""Stage 2: what is examined in the few candidates that passed stage 1, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from proxywell.checking.anonymity import assess
from proxywell.checking.exit_ip import canonical_ip, distinct, exit_match
from proxywell.checking.https_inspection import HttpsInspection
from proxywell.checking.ports import (
    Finding,
    Inspection,
    JudgeRequest,
    ProbeReport,
    Sighting,
    Subject,
)
from proxywell.config.schema import Settings
from proxywell.model.clock import Clock, SystemClock
from proxywell.model.endpoint import Protocol
from proxywell.model.failure import LIES, Blame, FailureKind
from proxywell.model.verdict import Anonymity, CheckState, CheckStep

_TOO_MANY_REQUESTS = 429
_POLL_S = 0.1  # a judge's allowance is looked at again after so long
_SIBLING_FACTOR = 4.0  # a sibling may take so many times what the first probe took
_SIBLING_MIN_S = 2.0

# A proxy that speaks one protocol of a family is likely to speak the others; of the other
# family the first is tried, and the rest only if that one works.
_HTTP_FAMILY = (Protocol.HTTP, Protocol.CONNECT)
_SOCKS_FAMILY = (Protocol.SOCKS5, Protocol.SOCKS4)


def default_inspections(settings: Settings, *, clock: Clock | None = None) -> list[Inspection]:
    """The inspections of every check: second, siblings, https, anonymity, exit.

    Args:
        settings: Time-outs, pins.
        clock: None: the machine's.
    """
    clock = clock or SystemClock()
    return [
        SecondRequest(clock, patience_s=settings.checking.answer_hard_s),
        Siblings(longest_s=settings.checking.answer_soft_s),
        HttpsInspection(
            clock,
            pins=settings.judge.spki_pins,
            total_s=settings.checking.answer_hard_s,
            answer_max_bytes=settings.checking.judge_answer_max_bytes,
        ),
        AnonymityInspection(),
        ExitInspection(),
    ]


class SecondRequest:
    """A second, independent request: of those that pass one, half fail the next.

    It goes to another judge if there is one, else to another path with another nonce. Only the
    proxy's own failure makes it fail; when the judge is unwell or grants no further request, it
    is unavailable and the verdict stays open.
    """

    name = "second"

    def __init__(self, clock: Clock, *, patience_s: float) -> None:
        """Take a clock, and how many seconds a public judge's allowance is waited for."""
        self._clock = clock
        self._patience_s = patience_s

    async def inspect(self, subject: Subject) -> Finding:
        """Ask once more."""
        first = subject.first.request
        avoid = None if first is None else first.judge
        request = await self._next_request(subject, avoid)
        if request is None:
            return self._open("no judge grants another request")
        probe = await subject.probe(subject.first.protocol, request)
        if _pushed_back(probe) and probe.request is not None:
            # A public judge may be tired of this exit, which says nothing of the proxy.
            again = await self._next_request(subject, probe.request.judge)
            if again is not None:
                request, probe = again, await subject.probe(subject.first.protocol, again)
        if probe.failure is None and probe.sighting is not None:
            step = CheckStep(
                self.name, CheckState.PASSED, target=request.judge, took_ms=probe.latency_ms
            )
            return Finding(step=step, sightings=(probe.sighting,))
        return await self._failed(subject, request, probe)

    async def _next_request(self, subject: Subject, avoid: str | None) -> JudgeRequest | None:
        panel = subject.panel
        end_s = self._clock.monotonic_s() + self._patience_s
        while True:  # ends at end_s, or sooner
            request = panel.request(avoid=avoid)
            if request is not None or panel.unwell_since_s() is not None:
                return request
            if self._clock.monotonic_s() >= end_s:
                return None
            await asyncio.sleep(_POLL_S)

    async def _failed(self, subject: Subject, request: JudgeRequest, probe: ProbeReport) -> Finding:
        kind = probe.failure or FailureKind.INTERNAL
        if kind.blame is not Blame.PROXY:
            return self._open(kind.value, request.judge, kind)
        if not await subject.panel.still_well(request.judge):
            return self._open(f"the judge is unwell ({kind.value})", request.judge)
        step = CheckStep(self.name, CheckState.FAILED, reason=kind.value, target=request.judge)
        # a lie told in the second answer says more than that the second request failed
        return Finding(step=step, failure=kind if kind in LIES else FailureKind.FIRST_REQUEST_ONLY)

    def _open(
        self,
        reason: str,
        judge: str | None = None,
        failure: FailureKind = FailureKind.JUDGE_UNWELL,
    ) -> Finding:
        step = CheckStep(self.name, CheckState.UNAVAILABLE, reason=reason, target=judge)
        return Finding(step=step, failure=failure)


class Siblings:
    """Which further protocols work on the same port. Never makes a proxy fail.

    Tried at the same time: the rest of the family (http and connect; socks4, socks4a and
    socks5), one protocol of the other family, and whatever else lists named. A sibling gets
    four times the time that the first probe took, at least two seconds: one that is so much
    slower is of no use, and verdicts wait for it.
    """

    name = "siblings"

    def __init__(self, *, longest_s: float) -> None:
        """Take the longest that a sibling is ever waited for, in seconds."""
        self._longest_s = longest_s

    async def inspect(self, subject: Subject) -> Finding:
        """Try them."""
        first = subject.first.protocol
        tried: dict[Protocol, Sighting | None] = {}
        while wave := _worth_a_try(first, tried, subject.candidate.hints):  # each but once
            told = await self._try_all(subject, wave)
            if not told:
                break
            tried |= told
        found = {protocol: sighting for protocol, sighting in tried.items() if sighting}
        facts = [f"{', '.join(found)} too"] if found else []
        if len(found) < len(tried):
            facts.append(f"not {', '.join(one for one in tried if one not in found)}")
        step = CheckStep(
            self.name,
            CheckState.PASSED if tried else CheckState.SKIPPED,
            reason=None if tried else "no judge grants another request",
            detail="; ".join(facts) or None,
        )
        return Finding(step=step, protocols=tuple(found), sightings=tuple(found.values()))

    async def _try_all(
        self, subject: Subject, protocols: Iterable[Protocol]
    ) -> dict[Protocol, Sighting | None]:
        """What came of each; those for which no judge grants a request are left out."""
        asked = [
            (protocol, request)
            for protocol in protocols
            if (request := subject.panel.request()) is not None
        ]
        seen = await asyncio.gather(*(self._try(subject, *pair) for pair in asked))
        return {protocol: sighting for (protocol, _), sighting in zip(asked, seen, strict=True)}

    async def _try(
        self, subject: Subject, protocol: Protocol, request: JudgeRequest
    ) -> Sighting | None:
        first_s = (subject.first.latency_ms or 0.0) / 1000
        patience_s = min(self._longest_s, max(_SIBLING_MIN_S, _SIBLING_FACTOR * first_s))
        try:
            async with asyncio.timeout(patience_s):
                probe = await subject.probe(protocol, request)
        except TimeoutError:
            return None
        return probe.sighting if probe.failure is None else None


class AnonymityInspection:
    """What a target learns about us, from all that judges saw during this check."""

    name = "anonymity"

    async def inspect(self, subject: Subject) -> Finding:
        """Weigh the sightings; asks nothing."""
        own = subject.panel.own_addresses
        host = canonical_ip(subject.candidate.endpoint.host)
        known = bool(own) if host is None else any((":" in ip) == (":" in host) for ip in own)
        found = assess(
            _sightings(subject),
            own=own,
            own_known=known,
            proxy_addresses=frozenset(() if host is None else (host,)),
        )
        told = found.level.label is not Anonymity.UNKNOWN
        reason = None
        if not told:
            reason = "our own address is not known" if not known else "no judge showed headers"
        step = CheckStep(
            self.name,
            CheckState.PASSED if told else CheckState.UNAVAILABLE,
            reason=reason,
            detail=found.detail,
        )
        return Finding(step=step, anonymity=found.level.label)


class ExitInspection:
    """Which addresses judges saw, and how they relate to the listed one."""

    name = "exit"

    async def inspect(self, subject: Subject) -> Finding:
        """Compare; asks nothing."""
        exits = distinct(one.exit_ip for one in _sightings(subject) if one.exit_ip)
        if not exits:
            reason = "no judge could see the exit"
            return Finding(step=CheckStep(self.name, CheckState.UNAVAILABLE, reason=reason))
        listed = subject.candidate.endpoint.host
        facts = [exit_match(exits[-1], listed).value]
        if len(exits) > 1:
            facts.append(f"changes: {', '.join(exits)}")
        plain = {one.exit_ip for one in _sightings(subject) if not one.inside_tls}
        inside = {one.exit_ip for one in _sightings(subject) if one.inside_tls}
        if plain and inside and plain.isdisjoint(inside):
            facts.append("differs for https")
        step = CheckStep(self.name, CheckState.PASSED, detail="; ".join(facts))
        return Finding(step=step)


def _worth_a_try(
    first: Protocol, tried: dict[Protocol, Sighting | None], hints: tuple[Protocol, ...]
) -> tuple[Protocol, ...]:
    working = {first, *(protocol for protocol, sighting in tried.items() if sighting)}
    pair = (_HTTP_FAMILY, _SOCKS_FAMILY)
    family, other = pair if first in _HTTP_FAMILY else reversed(pair)
    worth = [*family, *(other[:1] if working.isdisjoint(other) else other), *hints]
    if Protocol.SOCKS4 in working:
        worth.append(Protocol.SOCKS4A)
    return tuple(one for one in dict.fromkeys(worth) if one != first and one not in tried)


def _sightings(subject: Subject) -> tuple[Sighting, ...]:
    first = subject.first.sighting
    later = (sighting for finding in subject.examined for sighting in finding.sightings)
    return (*(() if first is None else (first,)), *later)


def _pushed_back(probe: ProbeReport) -> bool:
    return (
        probe.failure is FailureKind.HTTP_STATUS
        and probe.detail == _TOO_MANY_REQUESTS
        and probe.request is not None
    )
