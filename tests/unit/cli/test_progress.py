from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.cli.progress import LONGEST_INTERVAL_S, Rate, View, clock, figures, progress_bar
from proxywell.model.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError("the terminal is gone")


def at(elapsed_s: float, checked: int, *, planned: int | None = 1_000) -> Progress:
    return Progress(
        planned=planned, checked=checked, working=checked // 10, elapsed_s=elapsed_s, bound_s=600
    )


@pytest.mark.parametrize(
    ("progress", "per_s", "line"),
    [
        (Progress(planned=40_000, checked=12_340, given_up=60, working=57, chunks_planned=100,
                  chunks_done=30, elapsed_s=12, bound_s=600, sockets=1_998), 1_930.4,
         ("12,340/40,000 checked, 57 working, 60 given up, chunks 30/100, 1,930/s, 1,998 sockets, "
         "about 0:14 left (at most 9:48)")),
        (Progress(planned=40_000, checked=900, working=57, chunks_planned=100, chunks_done=30,
                  chunks_running=8, rescued=1, nodes=3, elapsed_s=1), 1_930.4,
         ("900/40,000 checked, 57 working, chunks 30/100 (8 running, 1 rescued), 1,930/s, "
          "3 nodes, about 0:20 left")),
        (Progress(planned=900, chunks_planned=9, nodes=0, bound_s=600), None,
         "0/900 checked, 0 working, chunks 0/9, no worker there, at most 10:00 left"),
        (Progress(planned=900, checked=900, chunks_planned=9, chunks_done=9, nodes=0), None,
         "900/900 checked, 0 working, chunks 9/9"),
        (Progress(planned=900, chunks_planned=9, chunks_running=1, nodes=1), None,
         "0/900 checked, 0 working, chunks 0/9 (1 running)"),
        (Progress(planned=10), None, "0/10 checked, 0 working"),
        (Progress(planned=10, bound_s=60), None, "0/10 checked, 0 working, at most 1:00 left"),
        (Progress(planned=1_000, bound_s=60), 1.0,
         "0/1,000 checked, 0 working, 1/s, at most 1:00 left"),
        (Progress(planned=10, checked=10, bound_s=60), 5.0, "10/10 checked, 0 working, 5/s"),
        (Progress(planned=None, checked=7, working=1), 3.0, "7 checked, 1 working, 3/s"),
        (Progress(planned=10, elapsed_s=99, bound_s=60), 0.0,
         "0/10 checked, 0 working, 0/s, at most 0:00 left"),
    ],
)  # fmt: skip
def test_one_line_says_how_far_how_fast_and_until_when(
    progress: Progress, per_s: float | None, line: str
) -> None:
    assert figures(progress, per_s) == line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (14.9, "0:14"), (723, "12:03"), (3_723, "1:02:03")]
)
def test_a_length_of_time_reads_like_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_off_a_terminal_lines_come_at_growing_intervals_and_at_the_end() -> None:
    out = io.StringIO()
    with progress_bar(out) as view:
        for tenth in range(3_000):
            view.update(at(tenth / 10, tenth))
    stamps = [line[1:].partition("]")[0] for line in out.getvalue().splitlines()]
    assert stamps == [
        "0:00",
        "0:02",
        "0:06",
        "0:14",
        "0:30",
        "1:02",
        "2:02",
        "3:02",
        "4:02",
        "4:59",
    ]
    assert (
        out.getvalue()
        .splitlines()[1]
        .endswith("20/1,000 checked, 2 working, 10/s, about 1:38 left (at most 9:58)")
    )


def test_the_last_figures_are_not_said_twice() -> None:
    out = io.StringIO()
    with progress_bar(out) as view:
        view.update(at(0, 1))
    view.__exit__(None, None, None)
    assert out.getvalue().count("\n") == 1


def test_nothing_is_shown_of_work_that_never_began() -> None:
    for out in (io.StringIO(), Terminal()):
        with progress_bar(out):
            pass
        assert out.getvalue() == ""


def test_on_a_terminal_a_bar_ends_with_the_last_figures() -> None:
    out = Terminal()
    with progress_bar(out) as view:
        view.update(at(1, 10))
        view.update(at(2, 1_000))
    view.__exit__(None, None, None)
    assert "━" in out.getvalue()
    assert "1,000/1,000 checked" in out.getvalue()


def test_on_a_narrow_terminal_the_end_of_the_line_is_wrapped_and_not_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    with progress_bar(out) as view:
        view.update(at(0, 0))
        view.update(at(2, 10))
    assert "(at most" in out.getvalue()


def test_a_terminal_that_breaks_does_not_stop_the_work() -> None:
    view: View = progress_bar(Broken())
    with view:
        view.update(at(0, 1))
        view.update(at(9, 2))


def test_the_rate_forgets_what_is_long_ago() -> None:
    rate = Rate()
    assert rate.per_s is None
    for second in range(100):
        rate.add(at(second, 0 if second < 50 else (second - 50) * 20, planned=None))
    assert rate.per_s == pytest.approx(20)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_the_rate_keeps_few_looks_and_never_divides_by_nothing(gaps: list[float]) -> None:
    rate, elapsed_s = Rate(), 0.0
    for number, gap_s in enumerate(gaps):
        elapsed_s += gap_s
        rate.add(at(elapsed_s, number))
    assert rate.per_s is None or rate.per_s >= 0
    assert LONGEST_INTERVAL_S > 0


def test_the_end_is_not_foretold_while_the_last_ones_wait_for_their_time_outs() -> None:
    late = Progress(planned=40_000, checked=36_000, elapsed_s=184.0, bound_s=2_400.0)
    assert "about" not in figures(late, per_s=3.0)
    assert "about" in figures(late, per_s=100.0)
