"""What the command line ends with, in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxywell.model.report import RefreshReport

DONE: Final = 0
SURROUNDINGS_FAILED: Final = 1  # disk, permissions, services, network
WRONG_USE: Final = 2  # the call, a setting, an input that is not there
PARTLY_DONE: Final = 3
NOTHING_DONE: Final = 4
INTERRUPTED: Final = 130


def exit_status(report: RefreshReport) -> int:
    """Say with which status a command ends that waited for this job.

    ``timed_out`` and ``stalled`` are partly done if anything was checked, else nothing was
    done. A job that still runs (no outcome yet) is no failure: 0.
    """
    from proxywell.model.report import Outcome  # not needed for --help, which is to be quick

    partly = PARTLY_DONE if report.items.checked else NOTHING_DONE
    return {
        None: DONE,
        Outcome.COMPLETE: DONE,
        Outcome.USABLE: DONE,
        Outcome.PARTIAL: PARTLY_DONE,
        Outcome.STALLED: partly,
        Outcome.TIMED_OUT: partly,
        Outcome.CANCELLED: PARTLY_DONE,
        Outcome.FAILED: SURROUNDINGS_FAILED,
    }[report.outcome]
