"""One judge at work: how it is met, asked directly, and how well it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxywell.checking.anonymity import learn_baseline
from proxywell.checking.control import Control, ControlLine, addresses_of, ask_directly
from proxywell.checking.exit_ip import is_public
from proxywell.checking.health import Health, TokenBucket
from proxywell.checking.judge import Judge, JudgeKind
from proxywell.checking.pages import repeats
from proxywell.checking.ports import Baseline
from proxywell.checking.wire import Verifier, key_in
from proxywell.model.clock import Clock
from proxywell.model.failure import FailureKind
from proxywell.telemetry.events import JudgeKeyLearnt, JudgeUnwell, JudgeWell, emit

TIMEOUT_S = 5.0  # to resolve a name, to connect, and for the answer
_NOT_RESOLVED = {
    FailureKind.ADDRESS_REFUSED: "its address is refused (--allow-private permits private ones)",
    FailureKind.LOCAL_FAULT: "our resolver does not answer",
}


class WatchedJudge:
    """One judge with its health and its allowance.

    Attributes:
        judge: What was learnt about it.
        health: As its direct requests show it.
        bucket: How often it may be asked; None: as often as one likes (ours, and private ones).
        said: What it said or did when it last failed.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        line: ControlLine,
        clock: Clock,
        public_rate_per_s: float,
        saw: Callable[[str, float], None],
    ) -> None:
        """Take a judge; nothing is asked yet.

        Args:
            judge: Whom.
            line: How direct requests leave, and which addresses may be dialled.
            clock: For health and latency.
            public_rate_per_s: Its allowance if it turns out to be a public one of others.
            saw: Told the address of ours that it saw (empty if it cannot know) and the seconds
                that the request took.
        """
        self.judge = judge
        self.health = Health()
        self.bucket: TokenBucket | None = None
        self.said = "nothing yet"
        self._line, self._clock = line, clock
        self._public_rate_per_s = public_rate_per_s
        self._saw = saw
        self._asking: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The judge as the user wrote it."""
        return self.judge.spec.name

    def is_reached_by(self, *, ipv6: bool) -> bool:
        """Whether it has an address of that family."""
        return any((":" in ip) is ipv6 for ip in self.judge.addresses)

    async def meet(self) -> None:
        """Resolve it, ask it over each family, and find out how it likes to be asked."""
        judge = self.judge
        await self.ask()
        if not self.health.well and judge.addresses and judge.spec.kind is not JudgeKind.PROXYWELL:
            judge.carries_nonce = False  # some pages know only their bare address
            await self.ask()
        if not self.health.well:
            judge.carries_nonce = True
            return
        if judge.baseline is not None and judge.baseline.fixed:
            await self.ask()  # twice, to see which values are the same each time
        await self.ask_other_family()

    async def ask(self) -> None:
        """One direct request; whoever asks while one is under way waits for that one."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._control())
            self._asking.add_done_callback(self._asked)
        await asyncio.shield(self._asking)

    async def ask_other_family(self) -> None:
        """Learn our address of the other family, where the judge has one of that."""
        first, *others = self.judge.addresses
        other = next((ip for ip in others if (":" in ip) != (":" in first)), None)
        if other is not None:
            control = await self._exchange(other)
            if control.page is not None:
                self._saw(control.page.peer_ip, control.took_s)

    async def close(self) -> None:
        """Break off what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    def _asked(self, _: asyncio.Task[None]) -> None:
        self._asking = None

    async def _control(self) -> None:
        was_well, ever_well = self.health.well, self.health.well_at_s is not None
        if not self.judge.addresses and not await self._resolve():
            self.health.failed(self._clock.monotonic_s())
            return
        control = await self._exchange(self.judge.addresses[0])
        now_s = self._clock.monotonic_s()
        if control.page is None:
            self.said = control.said
            self.health.failed(now_s, overloaded=control.overloaded)
            if ever_well and not self.health.well:
                self.judge.addresses = ()  # it may have moved: resolve it anew
            if was_well and not self.health.well:
                emit(JudgeUnwell(judge=self.name, said=control.said))
            return
        self.health.answered(now_s)
        self._learn(control)
        if ever_well and not was_well:
            emit(JudgeWell(judge=self.name))

    async def _resolve(self) -> bool:
        spec = self.judge.spec
        found = await addresses_of(spec.host, spec.port, line=self._line)
        if isinstance(found, FailureKind):
            self.said = _NOT_RESOLVED.get(found, "its name does not resolve")
            return False
        self.judge.addresses = found
        if spec.kind is not JudgeKind.PROXYWELL and is_public(found[0]):
            self.bucket = TokenBucket(self._public_rate_per_s)
        return True

    async def _exchange(self, address: str) -> Control:
        judge = self.judge
        request = judge.request()
        control = await ask_directly(
            request, address, secure=judge.spec.secure, line=self._line, clock=self._clock
        )
        if control.page is not None and repeats(control.page.targets, request.nonce):
            judge.repeats_nonce = True
        unknown_key = judge.spec.kind is JudgeKind.PROXYWELL and judge.verifier is None
        key = key_in(control.body) if unknown_key else None
        if key is None:
            return control
        try:
            judge.verifier = Verifier([key])
        except ValueError:
            return control
        emit(JudgeKeyLearnt(judge=self.name, public_key=key))  # no proxy stood between
        return await self._exchange(address)

    def _learn(self, control: Control) -> None:
        page, judge = control.page, self.judge
        assert page is not None, "only answers teach"
        if page.headers is not None:
            judge.baseline = learn_baseline(
                judge.baseline, judge.sent_headers, page.headers, peer_ip=page.peer_ip
            )
        elif judge.baseline is None:
            judge.baseline = Baseline()
        self._saw(page.peer_ip, control.took_s)
