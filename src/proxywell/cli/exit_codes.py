"""What the command line ends with, in one place."""

from __future__ import annotations

from typing import Final

from proxywell.model.report import Outcome, RefreshReport

DONE: Final = 0
SURROUNDINGS_FAILED: Final = 1  # disk, permissions, services, network
WRONG_USE: Final = 2  # the call, a setting, an input that is not there
PARTLY_DONE: Final = 3
NOTHING_DONE: Final = 4
INTERRUPTED: Final = 130

_BY_OUTCOME: Final = {
    Outcome.COMPLETE: DONE,
    Outcome.USABLE: DONE,
    Outcome.PARTIAL: PARTLY_DONE,
    Outcome.CANCELLED: PARTLY_DONE,
    Outcome.FAILED: SURROUNDINGS_FAILED,
}


def exit_status(report: RefreshReport) -> int:
    """Say with which status a command ends that waited for this job.

    ``timed_out`` and ``stalled`` are partly done if anything was checked, else nothing was
    done. A job that still runs (no outcome yet) is no failure: 0.
    """
    if report.outcome is None:
        return DONE
    if report.outcome in _BY_OUTCOME:
        return _BY_OUTCOME[report.outcome]
    return PARTLY_DONE if report.items.checked else NOTHING_DONE
