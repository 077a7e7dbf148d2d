"""The table of anonymity levels, row by row, and the comparison that feeds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxywell.checking import anonymity
from proxywell.checking.anonymity import (
    Assessment,
    Evidence,
    Level,
    assess,
    difference,
    learn_baseline,
    level,
)
from proxywell.checking.exit_ip import addresses_in
from proxywell.checking.ports import Baseline, Sighting
from proxywell.model.verdict import Anonymity, JudgeTrust

OWN_V4, OWN_V6, OWN_LAN = "198.51.100.7", "2001:db8:7::7", "192.168.7.7"
OWN = frozenset({OWN_V4, OWN_V6, OWN_LAN})
EXIT, LISTED, STRANGER = "45.9.8.7", "45.9.8.1", "8.8.4.4"
SENT = (
    ("Host", "judge.test"),
    ("User-Agent", "Mozilla/5.0"),
    ("Accept", "*/*"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
)


def seen(
    *extra: tuple[str, str],
    sent: Sequence[tuple[str, str]] = SENT,
    exit_ip: str = EXIT,
    arrived: Sequence[tuple[str, str]] | None = None,
    baseline: Baseline = Baseline(),  # noqa: B008 - immutable
    version: str = "1.1",
    inside_tls: bool = False,
    tells: bool = True,
) -> Sighting:
    headers = (*(sent if arrived is None else arrived), *extra)
    return Sighting(
        exit_ip=exit_ip,
        headers=headers if tells else None,
        http_version=version,
        trust=JudgeTrust.SIGNED,
        inside_tls=inside_tls,
        sent=tuple(sent),
        baseline=baseline,
    )


def weigh(*sightings: Sighting, own: frozenset[str] = OWN, known: bool = True) -> Assessment:
    return assess(sightings, own=own, own_known=known, proxy_addresses=frozenset({LISTED}))


def test_every_row_of_the_table_in_order() -> None:
    everything = {
        "ours_arrived": True, "inside_arrived": True, "stranger_arrived": True, "marked": True,
    }  # fmt: skip
    rows = [
        (Evidence(believed=False, exit_is_ours=True, **everything), Level.LIAR),
        (Evidence(exit_is_ours=True, inside_tls=True, **everything), Level.NOT_A_PROXY),
        (Evidence(inside_tls=True, headers_seen=False), Level.TUNNEL),
        (Evidence(headers_seen=False), Level.UNKNOWN),
        (Evidence(**everything), Level.TRANSPARENT),
        (Evidence(**{**everything, "ours_arrived": False}), Level.TRANSPARENT_LAN),
        (Evidence(own_known=False, stranger_arrived=True, marked=True), Level.UNKNOWN),
        (Evidence(own_known=False), Level.UNKNOWN),
        (Evidence(stranger_arrived=True, marked=True), Level.DISTORTING),
        (Evidence(marked=True), Level.ANONYMOUS),
        (Evidence(), Level.ELITE),
    ]
    for evidence, expected in rows:
        assert level(evidence) is expected, evidence


def test_every_combination_of_evidence_has_one_level_and_ours_never_passes_as_hidden() -> None:
    names = Evidence.__struct_fields__
    for values in product([False, True], repeat=len(names)):
        facts = dict(zip(names, values, strict=True))
        found = level(Evidence(**facts))
        plain = facts["believed"] and facts["headers_seen"] and not facts["inside_tls"]
        if plain and (facts["ours_arrived"] or facts["inside_arrived"]):
            assert found.label not in (Anonymity.ELITE, Anonymity.ANONYMOUS)
        if not facts["own_known"]:
            assert found.label not in (Anonymity.ELITE, Anonymity.ANONYMOUS)
        if found is Level.ELITE:
            assert not facts["marked"]


@pytest.mark.parametrize(
    ("one", "label"),
    [
        (Level.ELITE, Anonymity.ELITE),
        (Level.ANONYMOUS, Anonymity.ANONYMOUS),
        (Level.DISTORTING, Anonymity.ANONYMOUS),
        (Level.TRANSPARENT, Anonymity.TRANSPARENT),
        (Level.TRANSPARENT_LAN, Anonymity.TRANSPARENT),
        (Level.TUNNEL, Anonymity.UNKNOWN),
        (Level.UNKNOWN, Anonymity.UNKNOWN),
        (Level.LIAR, Anonymity.UNKNOWN),
        (Level.NOT_A_PROXY, Anonymity.UNKNOWN),
    ],
)
def test_levels_map_to_the_labels_of_a_verdict(one: Level, label: Anonymity) -> None:
    assert one.label is label


@pytest.mark.parametrize(
    "header",
    [
        ("X-Forwarded-For", OWN_V4),
        ("x-forwarded-for", f"{OWN_V4}, {EXIT}"),
        ("Forwarded", f"for={OWN_V4}:4711;proto=http"),
        ("Forwarded", f'for="[{OWN_V6}]:4711"'),
        ("Via", f"1.1 {OWN_V4} (squid)"),
        ("X-Anything-At-All", f"<{OWN_V6}>"),
        ("X-Real-IP", f"::ffff:{OWN_V4}"),
        ("X-Real-IP", "198.051.100.007"),
        ("Client-IP", f"_{OWN_V4}"),
        ("User-Agent", f"Mozilla/5.0 ({OWN_V4})"),
    ],
)
def test_an_own_address_in_any_header_is_transparent(header: tuple[str, str]) -> None:
    assert weigh(seen(header)).level is Level.TRANSPARENT


def test_an_own_address_in_a_changed_value_is_transparent() -> None:
    arrived = [(name, OWN_V4 if name == "User-Agent" else value) for name, value in SENT]
    assert weigh(seen(arrived=arrived)).level is Level.TRANSPARENT


def test_an_inside_address_of_ours_is_transparent_too() -> None:
    found = weigh(seen(("X-Forwarded-For", OWN_LAN)))
    assert found.level is Level.TRANSPARENT_LAN
    assert found.level.label is Anonymity.TRANSPARENT
    assert found.detail is not None
    assert found.detail.startswith("transparent_lan")


@pytest.mark.parametrize(
    "near", ["198.51.100.70", "198.51.100.77", "98.51.100.7", "1198.51.100.7", "198.51.100.7.9"]
)
def test_an_address_that_only_contains_ours_is_not_ours(near: str) -> None:
    assert weigh(seen(("X-Forwarded-For", near))).level is not Level.TRANSPARENT


@pytest.mark.parametrize(
    "header",
    [
        ("Via", "1.1 proxy (squid/5.7)"),
        ("X-Forwarded-For", "unknown"),
        ("X-Forwarded-For", EXIT),
        ("X-Forwarded-For", LISTED),
        ("X-Forwarded-For", "10.1.1.1"),
        ("Forwarded", "for=_hidden;by=_proxy"),
        ("Cache-Control", "max-age=259200"),
        ("Proxy-Connection", "keep-alive"),
        ("X-Proxy-ID", "123"),
        ("X-Never-Heard-Of", ""),
        ("Accept", "*/*"),  # a second one of what was sent once
        ("Via", "1.1 host (squid/5.7.0.1)"),  # a version, no address
    ],
)
def test_marks_of_a_proxy_without_our_address_are_anonymous(header: tuple[str, str]) -> None:
    assert weigh(seen(header)).level is Level.ANONYMOUS


@pytest.mark.parametrize(
    "header",
    [("X-Forwarded-For", STRANGER), ("Client-IP", "2a00:1450::5"), ("Via", f"1.1 {STRANGER}")],
)
def test_a_strangers_public_address_is_distorting(header: tuple[str, str]) -> None:
    found = weigh(seen(header))
    assert found.level is Level.DISTORTING
    assert found.level.label is Anonymity.ANONYMOUS


@pytest.mark.parametrize(
    "arrived",
    [
        SENT,
        tuple(reversed(SENT)),
        tuple((name.upper(), value) for name, value in SENT),
        tuple((name, f"  {value} ") for name, value in SENT),
        tuple(pair for pair in SENT if pair[0] != "Connection"),
        (*SENT[:-1], ("Connection", "keep-alive"), ("Keep-Alive", "timeout=5")),
        tuple(pair for pair in SENT if pair[0] != "Accept"),
        tuple((name, "Other/1.0" if name == "User-Agent" else value) for name, value in SENT),
    ],
)
def test_what_shows_no_added_header_is_elite(arrived: tuple[tuple[str, str], ...]) -> None:
    assert weigh(seen(arrived=arrived)).level is Level.ELITE


def test_facts_beside_the_level_are_told() -> None:
    arrived = [("Host", "judge.test"), ("User-Agent", "Other/1.0"), ("VIA", "1.0 x"), ("via", "y")]
    found = weigh(seen(arrived=arrived, version="1.0"))
    assert found.adds_headers == ("VIA",)
    assert found.changes_headers == ("User-Agent",)
    assert found.drops_headers == ("Accept", "Accept-Encoding")
    assert found.downgrades
    assert found.detail == (
        "adds VIA; drops Accept, Accept-Encoding; changes User-Agent; sends HTTP/1.0"
    )


def test_names_that_a_page_was_made_to_print_are_cleaned_and_bounded() -> None:
    hostile = [(f"\x1b]0;{number}\x07" + "x" * 200, "") for number in range(50)]
    found = weigh(seen(*hostile))
    assert len(found.adds_headers) == 20
    assert all(name.isprintable() and len(name) <= 64 for name in found.adds_headers)


def test_only_inside_tls_nothing_can_be_said() -> None:
    assert weigh(seen(inside_tls=True)).level is Level.TUNNEL
    assert weigh(seen(inside_tls=True)).level.label is Anonymity.UNKNOWN


def test_a_judge_that_shows_no_headers_leaves_it_unknown() -> None:
    assert weigh(seen(tells=False)).level is Level.UNKNOWN


def test_without_our_own_address_it_is_unknown_and_never_a_guess() -> None:
    assert weigh(seen(), own=frozenset(), known=False).level is Level.UNKNOWN
    assert weigh(seen(("Via", "x")), own=frozenset(), known=False).level is Level.UNKNOWN


def test_what_leaks_is_seen_even_if_not_all_own_addresses_are_known() -> None:
    assert weigh(seen(("X-Real-IP", OWN_V6)), known=False).level is Level.TRANSPARENT


def test_an_exit_that_is_ours_is_no_proxy() -> None:
    assert weigh(seen(exit_ip=OWN_V4)).level is Level.NOT_A_PROXY
    assert weigh(seen(exit_ip=OWN_V6, tells=False)).level is Level.NOT_A_PROXY


def test_the_worst_sighting_counts_and_silent_ones_do_not() -> None:
    leak = seen(("X-Forwarded-For", OWN_V4))
    assert weigh(seen(), leak, seen(inside_tls=True)).level is Level.TRANSPARENT
    assert weigh(seen(), seen(tells=False), seen(inside_tls=True)).level is Level.ELITE
    assert weigh(seen(tells=False), seen(inside_tls=True)).level.label is Anonymity.UNKNOWN
    assert weigh().level is Level.UNKNOWN


def test_what_the_direct_path_adds_is_not_the_proxys() -> None:
    direct = learn_baseline(
        None, SENT, (*SENT, ("Via", "1.1 lb"), ("X-Real-IP", OWN_V4)), peer_ip=OWN_V4
    )
    assert direct.fixed == (("via", "1.1 lb"), ("x-real-ip", "{peer}"))
    honest = seen(("Via", "1.1 lb"), ("X-Real-IP", EXIT), baseline=direct)
    assert weigh(honest).level is Level.ELITE
    marked = seen(("Via", "1.1 squid, 1.1 lb"), ("X-Real-IP", EXIT), baseline=direct)
    assert weigh(marked).level is Level.ANONYMOUS
    leaking = seen(("Via", "1.1 lb"), ("X-Real-IP", OWN_V4), baseline=direct)
    assert weigh(leaking).level is Level.TRANSPARENT


def test_a_value_that_changes_on_the_direct_path_is_no_mark_through_a_proxy() -> None:
    first = learn_baseline(None, SENT, (*SENT, ("X-Trace", "a1")), peer_ip=OWN_V4)
    second = learn_baseline(first, SENT, (*SENT, ("X-Trace", "b2")), peer_ip=OWN_V4)
    third = learn_baseline(second, SENT, (*SENT, ("X-Trace", "b2")), peer_ip=OWN_V4)
    assert second == third == Baseline(volatile=frozenset({"x-trace"}))
    assert weigh(seen(("X-Trace", "c3"), baseline=third)).level is Level.ELITE
    assert weigh(seen(("X-Trace", f"c3 {OWN_V4}"), baseline=third)).level is Level.TRANSPARENT


def test_a_baseline_without_additions_stays_empty() -> None:
    assert (
        learn_baseline(learn_baseline(None, SENT, SENT, peer_ip=EXIT), SENT, SENT, peer_ip=EXIT)
        == Baseline()
    )


header_name = st.sampled_from(["Via", "X-A", "x-a", "Accept", "User-Agent", "Host"])
header_list = st.lists(st.tuples(header_name, st.sampled_from(["1", "2", "", OWN_V4])), max_size=8)


@given(sent=header_list, received=header_list)
def test_the_comparison_accounts_for_every_header(
    sent: list[tuple[str, str]], received: list[tuple[str, str]]
) -> None:
    found = difference(sent, received, baseline=Baseline(), exit_ip=EXIT)
    matched = len(received) - len(found.otherwise)
    assert len(found.otherwise) == len(found.added) + len(found.changed)
    assert len(sent) == matched + len(found.changed) + len(found.dropped)


@given(headers=header_list, seed=st.randoms(use_true_random=False))
def test_order_and_case_say_nothing(headers: list[tuple[str, str]], seed: object) -> None:
    shuffled = [(name.swapcase(), value) for name, value in headers]
    seed.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    found = difference(headers, shuffled, baseline=Baseline(), exit_ip=EXIT)
    assert found == anonymity.Difference((), (), (), ())


PLACES = ("{}", "for={}", 'for="[{}]:80"', "1.1 x ({})", "a,{},b", "_{}", "http://{}/")
NAMES = ("Via", "X-Z", "User-Agent", "Forwarded", "accept")
leaks = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(PLACES), st.sampled_from(sorted(OWN)), st.integers(0, 5)
)
Leak: TypeAlias = tuple[str, str, str, int]


def leaking(leak: Leak) -> Sighting:
    name, form, own, at = leak
    arrived = [pair for pair in SENT if pair[0].lower() != name.lower()]
    arrived.insert(at, (name, form.format(own)))
    return seen(arrived=arrived)


@given(leaks)
def test_a_leak_is_found_wherever_it_is_written(leak: Leak) -> None:
    assert weigh(leaking(leak)).level.label is Anonymity.TRANSPARENT


def only_known_names(sighting: Sighting) -> bool:
    known = {"x-forwarded-for", "via", "forwarded"}
    values = [value for name, value in sighting.headers or () if name.lower() in known]
    return any(ip in OWN for value in values for ip in addresses_in(value))


def only_added_headers(sighting: Sighting) -> bool:
    sent = {name.lower() for name, _ in sighting.sent}
    values = [value for name, value in sighting.headers or () if name.lower() not in sent]
    return any(ip in OWN for value in values for ip in addresses_in(value))


def only_ipv4(sighting: Sighting) -> bool:
    values = [value for _, value in sighting.headers or ()]
    return any(ip in OWN and ":" not in ip for value in values for ip in addresses_in(value))


def only_lists_of_addresses(sighting: Sighting) -> bool:
    values = [value for _, value in sighting.headers or ()]
    return any(part.strip() in OWN for value in values for part in value.split(","))


@pytest.mark.parametrize(
    "bug", [only_known_names, only_added_headers, only_ipv4, only_lists_of_addresses]
)
def test_a_search_with_a_bug_is_caught_by_the_property(bug: Callable[[Sighting], bool]) -> None:
    @settings(max_examples=300, derandomize=True, database=None)
    @given(leaks)
    def the_property(leak: Leak) -> None:
        assert bug(leaking(leak))

    with pytest.raises(AssertionError):
        the_property()


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=30)), max_size=6))
def test_any_headers_can_be_weighed(headers: list[tuple[str, str]]) -> None:
    found = weigh(seen(arrived=headers))
    assert found.level in set(Level)
    assert found.detail is None or found.detail.isprintable()
