"""The figures for Prometheus that a state directory keeps, and the file that shows them."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from secrets import token_hex

from proxywell.errors import StateError
from proxywell.model.report import RefreshReport
from proxywell.refresh.books import JobRow, JobState
from proxywell.refresh.ledgers.sqlite import open_ledger
from proxywell.refresh.run import RefreshRoom
from proxywell.telemetry.metrics import Meter


def settle(room: RefreshRoom, state_dir: Path, events: Meter, textfile: Path) -> None:
    """Add what is new to the figures that are kept, and show all of them in a file.

    Each finished job is counted once, whoever comes to count it and however often, also jobs
    that a process finished which was killed before it could. The file is replaced in one step.

    Args:
        room: Has the reports of the jobs.
        state_dir: Where the figures are kept, in the file of the ledger.
        events: Of this process; set back to nought.
        textfile: What is written; readable for everybody.

    Raises:
        StateError: The ledger or the file cannot be written.
    """
    with closing(open_ledger(state_dir)) as home:
        with home.transaction() as db:
            counted = {job_id for (job_id,) in db.execute("SELECT job FROM metered")}
        ended = [
            job for job in room.jobs() if job.state is JobState.DONE and job.job_id not in counted
        ]
        reports = {job.job_id: (job, room.report(job.job_id)) for job in ended}
        with home.transaction() as db:
            row = db.execute("SELECT body FROM meter").fetchone()
            meter = Meter(row[0] if row else b"")
            for job_id, (job, report) in reports.items():
                new = db.execute("INSERT OR IGNORE INTO metered VALUES (?)", (job_id,))
                if new.rowcount:
                    meter.count_report(report, ended_at_s=_ended_at_s(job, report))
            db.execute("DELETE FROM metered WHERE job NOT IN (SELECT id FROM job)")
            meter.take(events)
            db.execute("INSERT OR REPLACE INTO meter VALUES (1, ?)", (meter.kept(),))
            _write(textfile, meter.exposition())  # in the step, so that no older one comes last


def _ended_at_s(job: JobRow, report: RefreshReport) -> float:
    """Seconds since the epoch; the wall clock is only known of the job's creation."""
    return job.created_at_s + max(0.0, (job.finalised_s or job.created_s) - job.created_s)


def _write(textfile: Path, text: str) -> None:
    beside = textfile.with_name(f".{textfile.name}.{token_hex(4)}")
    try:
        try:
            beside.write_text(text, encoding="utf-8")
            beside.chmod(0o644)
            beside.replace(textfile)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StateError(
            f"metrics.textfile: {textfile} cannot be written ({os.strerror(error.errno or 0)})"
        ) from error
