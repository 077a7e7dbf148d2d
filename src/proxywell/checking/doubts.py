"""Failures that the judge may have caused wait here until it is known that it did not.

A failure is held against a proxy only if the judge was seen to be well afterwards, and was not
unwell in between. The seeing is done by other proxies that pass, or by a direct request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from proxywell.checking.check import Check
from proxywell.checking.ports import Panel

ASK_AFTER_S = 0.2  # without a proxy that passes, the judge is asked directly
DOUBT_MAX_S = 20.0  # then a failure counts, if no judge was found unwell meanwhile
JUDGE_WAIT_S = 60.0  # how long candidates wait for a judge to recover


class Doubts:
    """The checks that wait for a word on the judge.

    Args:
        panel: The judges.
        settle: Called with a check whose failure counts.
        anew: Called with a check that must begin anew: the judge was unwell.
        give_up: Called with a check that nothing can be said about: the judge stays unwell.

    Attributes:
        unwell: No judge answers us directly, as far as is known.
    """

    def __init__(
        self,
        panel: Panel,
        *,
        settle: Callable[[Check], None],
        anew: Callable[[Check], None],
        give_up: Callable[[Check], None],
    ) -> None:
        self._panel = panel
        self._settle, self._anew, self._give_up = settle, anew, give_up
        self._held: deque[Check] = deque()  # failed while the judge was thought to be well
        self._stranded: list[Check] = []  # failed while it was not, or just before
        self._passed_s = float("-inf")
        self.unwell = False

    def __len__(self) -> int:
        return len(self._held) + len(self._stranded)

    def passed(self, now_s: float) -> None:
        """Somebody got a true answer: the judge is well."""
        self._passed_s = now_s

    def hold(self, check: Check, now_s: float) -> None:
        """Keep a failed check until the judge is known to be well or unwell."""
        check.waits_since_s = now_s
        if self.unwell:
            self._stranded.append(check)
        else:
            self._held.append(check)

    def forget(self, check: Check) -> None:
        """Drop a check that was cancelled."""
        if check in self._held:
            self._held.remove(check)
        elif check in self._stranded:
            self._stranded.remove(check)

    def look(self, now_s: float) -> None:
        """Settle what can be settled; called after every turn of the reactor."""
        unwell_since_s = self._panel.unwell_since_s()
        if unwell_since_s is not None:
            if not self.unwell:
                self.unwell = True
                self._stranded.extend(self._held)
                self._held.clear()
            if now_s - unwell_since_s >= JUDGE_WAIT_S:
                for check in self._take_stranded():
                    self._give_up(check)
            return
        if self.unwell:
            self.unwell = False
            for check in self._take_stranded():
                (self._give_up if check.again else self._anew)(check)
        if not self._held:
            return
        well_at_s = max(self._passed_s, self._panel.well_at_s() or float("-inf"))
        held = self._held
        while held:
            since_s = held[0].waits_since_s
            waited_s = now_s - since_s
            if well_at_s <= since_s and waited_s < DOUBT_MAX_S:
                if waited_s >= ASK_AFTER_S:
                    self._panel.doubt()
                return
            self._settle(held.popleft())

    def _take_stranded(self) -> list[Check]:
        stranded, self._stranded = self._stranded, []
        return stranded
