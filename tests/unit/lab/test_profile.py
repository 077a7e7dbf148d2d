"""Profiles: the shipped ones, and mistakes in one's own."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from proxywell.errors import InputMissingError, UsageError
from proxywell.lab.profile import Latency, load_profile, parse_profile, shipped_profiles

SMALLEST = """
[fleet]
candidates = 10
working_share = 1.0
[working]
http = 1
"""


def parse(text: str) -> object:
    return parse_profile(text, where="own.toml", name="own")


def test_the_documented_profiles_are_shipped_and_valid() -> None:
    assert shipped_profiles() == ["field", "hard", "hostile", "realistic", "small"]
    for name in shipped_profiles():
        profile = load_profile(name)
        assert profile.name == name
        assert profile.about


def test_the_hard_one_has_the_figures_of_the_design() -> None:
    hard = load_profile("hard")
    assert hard.fleet.candidates == 40_000
    assert hard.fleet.working_share == 0.05
    black_holes = hard.junk["black_hole"] / sum(hard.junk.values()) * 0.95
    assert black_holes == pytest.approx(0.60, abs=0.005)
    assert (hard.latency.median_s, hard.latency.p95_s) == (0.9, 6.0)


def test_a_file_is_read_and_named_after_itself(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(SMALLEST)
    assert load_profile(str(path)).name == "own"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[flet]\n", "did you mean 'fleet'"),
        ("[fleet]\ncandidate = 3\n", "did you mean 'candidates'"),
        (SMALLEST + "htp_connect = 2\n", "did you mean 'http_connect'"),
        ("[fleet]\ncandidates = 0\n", "candidates"),
        ("[fleet]\nworking_share = 0.7\nliar_share = 0.7\n", "must not be above 1"),
        ("[latency]\nmedian_s = 2\np95_s = 1\n", "p95_s must not be below median_s"),
        ('[churn]\nmode = "trace"\n', "needs trace"),
        ("[fleet]\nworking_share = 1.0\n", "[working] names no behaviour"),
        ("[fleet\n", "is not TOML"),
        (SMALLEST + "[fleet.front]\nsocks6 = 1\n", "did you mean 'socks5'"),
        (SMALLEST + "[fleet.front]\nhttp = 0\n", "needs a weight above zero"),
        (
            "[anonymity]\ntransparent = 0\nanonymous = 0\ndistorting = 0\nelite = 0\n",
            "needs a weight above zero",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_the_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "own.toml" in str(caught.value)
    assert "\n" not in str(caught.value).strip()


def test_unknown_names_and_missing_files_suggest_what_there_is() -> None:
    with pytest.raises(InputMissingError, match="did you mean 'realistic'"):
        load_profile("realistc")
    with pytest.raises(InputMissingError, match="No such file"):
        load_profile("/nowhere/at/all.toml")


def test_latencies_have_the_median_and_the_p95_that_the_profile_names() -> None:
    latency = Latency(median_s=0.9, p95_s=6.0, between_share=0.3)
    draw = random.Random(5)
    samples = sorted(
        math.exp(draw.gauss(draw.gauss(math.log(0.9), latency.sigma_between), latency.sigma_within))
        for _ in range(20_000)
    )
    assert samples[10_000] == pytest.approx(0.9, rel=0.05)
    assert samples[19_000] == pytest.approx(6.0, rel=0.1)
