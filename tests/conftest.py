"""What holds for every test: hypothesis profiles, and a last word on what did not run."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", max_examples=60, deadline=None, database=None)
settings.register_profile(
    "deep",
    max_examples=2_000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("PROXYWELL_TEST_PROFILE", "default"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what did not run and why; a skip's reason ends with the line that installs it."""
    skipped: list[pytest.TestReport | pytest.CollectReport] = terminalreporter.stats.get(
        "skipped", []
    )
    if not skipped:
        return
    why = Counter(_reason(report) for report in skipped)
    terminalreporter.section("did not run")
    for reason, count in why.most_common():
        terminalreporter.line(f"{count:5} {'test' if count == 1 else 'tests'}: {reason}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
