"""The one place that joins parts: settings in, running parts out."""

from proxywell.app.checkers import (
    NoSourceError,
    check_in_processes,
    must_be_sound,
    must_have_read,
    open_checker,
    read_candidates,
    verify_members,
)
from proxywell.app.jobs import RefreshWish, as_job_was_started, job_room, refresh

__all__ = [
    "NoSourceError",
    "RefreshWish",
    "as_job_was_started",
    "check_in_processes",
    "job_room",
    "must_be_sound",
    "must_have_read",
    "open_checker",
    "read_candidates",
    "refresh",
    "verify_members",
]
