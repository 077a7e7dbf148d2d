from __future__ import annotations

from proxywell.cli.timeline import timeline_in_words
from proxywell.refresh.timeline import Loss, Moment, NodeShare, Timeline

STORY = Timeline(
    [
        Moment("asked_for", 0.0, 0.0, 1, "lists are read"),
        Moment("created", 1.2, 1.2, 1, "40,000 candidates in 20 chunks"),
        Moment("claimed", 1.31, 99.0, 23, "a worker took the first chunk; attempts so far: 23"),
        Moment("rescued", 12.1, 1_015.2, 3, "taken from silent workers"),
        Moment("left_alone", 20.0, 20.0, 1, "nobody was there for 4,995 s"),
    ],
    [Loss(12.1, 12, 2, "box:4711", "runs again"), Loss(15.0, 13, 0, "box:4711", "given up")],
    [
        NodeShare("box:4711", 20, 18, 36_000, 3, 1_015.0, True),
        NodeShare("a-machine-with-a-long-name:1", 3, 2, 4_000, 0, 99.0, None),
    ],
)

GOLDEN = """\
  seconds  what happened
      0.0  asked for      lists are read
      1.2  created        40,000 candidates in 20 chunks
      1.3  claimed        a worker took the first chunk; attempts so far: 23
     12.1  rescued        3 times until 1,015.2 s: taken from silent workers
     20.0  left alone     nobody was there for 4,995 s

  seconds  the latest attempts that were lost
     12.1  chunk 12, attempt 2 of box:4711: runs again
     15.0  chunk 13 of box:4711: given up

  node                          attempts  chunks  candidates    lost  last heard of
  box:4711                            20      18      36,000       3  after 1,015.0 s, is there
  a-machine-with-a-long-name:1         3       2       4,000       0  after 99.0 s"""


def test_a_story_is_laid_out_in_moments_losses_and_nodes() -> None:
    assert timeline_in_words(STORY) == GOLDEN


def test_of_a_job_that_nobody_carries_it_says_since_when() -> None:
    story = Timeline(STORY.moments[:1], silent_s=200.0)
    assert "since then     nobody has reached its books for 3:20" in timeline_in_words(story)
    story.silent_s = 0.4  # somebody works on it
    assert "since then" not in timeline_in_words(story)


def test_what_is_known_of_a_job_on_celery_has_an_age() -> None:
    said = timeline_in_words(Timeline(STORY.moments[:1], silent_s=75.0), engine="celery")
    assert "this is what was known here 1:15 ago; `job wait` asks Redis" in said


def test_nothing_is_said_of_nothing() -> None:
    assert timeline_in_words(Timeline()) == ""
