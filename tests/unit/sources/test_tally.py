from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.config.schema import SourceSettings
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.report import RefusalReason
from proxywell.net.guard import Guard
from proxywell.sources.gathering import Gathering
from proxywell.sources.grammar import HINT_BITS, Entry, Malformed
from proxywell.sources.tally import SourceTally, endpoint_of, identity_of, shown
from tests.unit.protocols.planted import finds_a_counterexample

HTTP, CONNECT, SOCKS4, SOCKS4A, SOCKS5 = (HINT_BITS[protocol] for protocol in Protocol)


def tally_of(
    items: Sequence[Entry | Malformed],
    *,
    settings: SourceSettings | None = None,
    keep_credentials: bool = False,
    allow_private: bool = False,
    kind: type[SourceTally] = SourceTally,
) -> SourceTally:
    tally = kind(
        Guard(allow_private=allow_private),
        settings or SourceSettings(),
        keep_credentials=keep_credentials,
    )
    for item in items:
        tally.add(item)
    return tally


def accepted(tally: SourceTally) -> list[Endpoint]:
    return [endpoint_of(identity) for identity, _, taken in tally.endpoints() if taken]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (Malformed("x"), RefusalReason.MALFORMED),
        (Entry("localhost", 6379, named=True), RefusalReason.HOST_NAME),  # before service_port
        (Entry("10.0.0.1", 22, 0, "u", "p"), RefusalReason.PRIVATE_ADDRESS),  # first of three
        (Entry("8.8.8.8", 22, 0, "u", "p"), RefusalReason.SERVICE_PORT),  # first of two
        (Entry("8.8.8.8", 80, 0, "u", "p"), RefusalReason.CREDENTIALS),
        (Entry("8.8.8.8", 80), None),
    ],
)
def test_the_first_reason_that_holds_refuses(
    item: Entry | Malformed, reason: RefusalReason | None
) -> None:
    assert tally_of([item]).refused == ({} if reason is None else {reason: 1})


def test_names_and_credentials_are_taken_where_that_is_allowed() -> None:
    settings = SourceSettings(allow_host_names=True)
    entry = Entry("proxy.example.com", 80, 0, "u", "p", named=True)
    assert accepted(tally_of([entry], settings=settings, keep_credentials=True)) == [
        Endpoint("proxy.example.com", 80, "u", "p")
    ]
    port = Entry("proxy.example.com", 22, named=True)
    assert tally_of([port], settings=settings).refused == {RefusalReason.SERVICE_PORT: 1}


def test_a_duplicate_is_no_refusal_and_shares_the_decision() -> None:
    tally = tally_of([Entry("8.8.8.8", 80, HTTP), Entry("8.8.8.8", 80, SOCKS5)] * 2)
    assert (tally.read, tally.unique, tally.accepted, tally.refused) == (4, 1, 1, {})
    assert tally.by_protocol() == {"http": 1, "socks5": 1}
    private = tally_of([Entry("10.0.0.1", 80)] * 3)
    assert (private.read, private.unique, private.accepted) == (3, 1, 0)
    assert private.refused == {RefusalReason.PRIVATE_ADDRESS: 3}


def test_candidates_without_a_hint_are_counted_as_unknown() -> None:
    tally = tally_of([Entry("8.8.8.8", 80), Entry("8.8.8.9", 80, CONNECT), Entry("8.8.8.9", 80)])
    assert tally.by_protocol() == {"connect": 1, "unknown": 1}


def test_a_source_gives_its_hint_to_entries_without_one() -> None:
    tally = SourceTally(Guard(), SourceSettings(), keep_credentials=False, default_hints=SOCKS4)
    for entry in (Entry("8.8.8.8", 80), Entry("8.8.8.9", 80, HTTP)):
        tally.add(entry)
    assert tally.by_protocol() == {"http": 1, "socks4": 1}


def test_caps_count_distinct_candidates_of_an_address_a_network_and_a_source() -> None:
    settings = SourceSettings(per_address_max=2, per_network_max=3, per_source_max=5)
    entries: list[Entry | Malformed] = [
        *(Entry("8.8.8.8", port) for port in (81, 81, 82, 83, 84)),  # 2 and 2 too many
        *(Entry(f"8.8.8.{n}", 80) for n in (1, 2)),  # 1 and 1 too many
        *(Entry("2606:4700:0:1::1", port) for port in (81, 82, 83)),  # 2, 1 too many
        Entry("9.9.9.9", 80),  # beyond five
        Entry("8.8.8.8", 83),  # again: the same decision again
    ]
    tally = tally_of(entries, settings=settings)
    assert tally.refused == {
        RefusalReason.TOO_MANY_PER_ADDRESS: 4,
        RefusalReason.TOO_MANY_PER_NETWORK: 1,
        RefusalReason.TOO_MANY: 1,
    }
    assert tally.accepted == 5
    assert tally.unique == 10


def test_ipv6_is_capped_by_its_first_48_bits() -> None:
    settings = SourceSettings(per_network_max=2)
    entries: list[Entry | Malformed] = [Entry(f"2606:4700:1:{n}::1", 80) for n in range(3)]
    tally = tally_of([*entries, Entry("2606:4700:2::1", 80)], settings=settings)
    assert tally.refused == {RefusalReason.TOO_MANY_PER_NETWORK: 1}


def test_allowed_loopback_is_not_capped_by_address_or_network() -> None:
    settings = SourceSettings(per_address_max=1, per_network_max=1, per_source_max=4)
    entries: list[Entry | Malformed] = [Entry("127.0.0.1", port) for port in range(81, 86)]
    tally = tally_of(entries, settings=settings, allow_private=True)
    assert tally.refused == {RefusalReason.TOO_MANY: 1}


def test_an_endless_list_does_not_fill_the_memory() -> None:
    settings = SourceSettings(per_source_max=10)
    entries: list[Entry | Malformed] = [Entry(f"8.{n >> 8}.{n & 255}.1", 80) for n in range(3_000)]
    tally = tally_of(entries, settings=settings)
    assert tally.refused == {RefusalReason.TOO_MANY: 2_990}
    assert tally.unique == 1_000


hosts = st.sampled_from(["8.8.8.8", "8.8.8.9", "9.9.9.9", "10.0.0.1", "2606:4700::1111", "::1"])
entries = st.one_of(
    st.builds(
        Entry,
        hosts,
        st.sampled_from([22, 80, 81]),
        st.integers(0, 31),
        st.none(),
        st.none(),
    ),
    st.builds(Entry, hosts, st.sampled_from([80, 81]), st.just(0), st.just("u"), st.just("p")),
    st.builds(Entry, st.just("a.example"), st.sampled_from([22, 80]), named=st.just(True)),
    st.just(Malformed("junk")),
)
lists = st.lists(entries, max_size=60)
SMALL = SourceSettings(per_address_max=2, per_network_max=3, per_source_max=4)


def every_entry_is_decided_once(
    items: list[Entry | Malformed], kind: type[SourceTally] = SourceTally
) -> None:
    """The identity of the account, against a second count that knows nothing of the first."""
    tally = tally_of(items, settings=SMALL, kind=kind)
    taken = set(accepted(tally))
    well_formed = [
        Endpoint(item.host, item.port, item.user, item.password)
        for item in items
        if isinstance(item, Entry)
    ]
    of_accepted = sum(1 for endpoint in well_formed if endpoint in taken)  # first ones, duplicates
    assert tally.read == len(items)
    assert tally.refused.get(RefusalReason.MALFORMED, 0) == len(items) - len(well_formed)
    assert tally.read == of_accepted + sum(tally.refused.values())
    assert tally.unique == len(set(well_formed))
    assert tally.accepted == len(taken) <= 4
    assert all(Guard().refusal(endpoint.host, endpoint.port) is None for endpoint in taken)
    assert max(Counter(endpoint.host for endpoint in taken).values(), default=0) <= 2


@given(items=lists)
def test_every_entry_is_decided_exactly_once(items: list[Entry | Malformed]) -> None:
    every_entry_is_decided_once(items)


class RefusesADuplicateOnce(SourceTally):
    """A planted bug: the second entry of a refused endpoint is lost from the account."""

    def add(self, item: Entry | Malformed) -> None:
        before = dict(self.refused)
        unique = self.unique
        super().add(item)
        if unique == self.unique and isinstance(item, Entry):
            self.refused = before


def test_the_account_catches_an_entry_that_is_lost() -> None:
    assert finds_a_counterexample(
        lists, lambda items: every_entry_is_decided_once(items, RefusesADuplicateOnce)
    )


@given(
    entry=st.one_of(
        st.builds(
            Entry,
            st.one_of(
                st.ip_addresses(v=4).map(str),
                st.integers(0, 2**128 - 1).map(
                    lambda n: ":".join(f"{n >> s & 65535:x}" for s in range(112, -1, -16))
                ),
            ),
            st.integers(1, 65535),
        ),
        entries.filter(lambda item: isinstance(item, Entry)),
    )
)
def test_the_endpoint_comes_back_from_its_identity(entry: Entry) -> None:
    endpoint = endpoint_of(identity_of(entry))
    again = Entry(endpoint.host, endpoint.port, 0, endpoint.user, endpoint.password, entry.named)
    assert identity_of(again) == identity_of(entry)
    if entry.host.count(":") == 0:
        assert endpoint.host == entry.host


def gathered(*sources: tuple[str, Sequence[Entry | Malformed]]) -> Gathering:
    gathering = Gathering()
    for name, items in sources:
        list(gathering.merge(name, tally_of(items)))
    return gathering


def taken_from(gathering: Gathering) -> list[Candidate]:
    candidates: list[Candidate] = []
    list(gathering.take(candidates))
    return candidates


def test_one_endpoint_in_many_lists_is_one_candidate_with_all_hints_and_sources() -> None:
    gathering = gathered(
        ("a", [Entry("8.8.8.8", 80, HTTP), Entry("8.8.8.8", 80, SOCKS5), Entry("9.9.9.9", 80)]),
        ("b", [Entry("8.8.8.8", 80, SOCKS5)] * 9 + [Entry("10.0.0.1", 80)]),
        ("c", [Entry("8.8.8.8", 80, SOCKS5), Entry("2606:4700::1111", 80, CONNECT)]),
    )
    assert gathering.unique == 4
    found = taken_from(gathering)
    assert [(c.endpoint.netloc, c.hints, c.sources) for c in found] == [
        ("8.8.8.8:80", (Protocol.SOCKS5, Protocol.HTTP), ("a", "b", "c")),
        ("9.9.9.9:80", (), ("a",)),
        ("[2606:4700::1111]:80", (Protocol.CONNECT,), ("c",)),
    ]


def test_a_list_gets_one_vote_for_a_protocol_however_often_it_repeats() -> None:
    gathering = gathered(
        ("loud", [Entry("8.8.8.8", 80, SOCKS5)] * 50),
        ("a", [Entry("8.8.8.8", 80, HTTP)]),
        ("b", [Entry("8.8.8.8", 80, HTTP)]),
    )
    found = taken_from(gathering)
    assert found[0].hints == (Protocol.HTTP, Protocol.SOCKS5)


def test_many_votes_do_not_spill_into_the_next_protocol() -> None:
    gathering = gathered(*((f"s{n}", [Entry("8.8.8.8", 80, HTTP)]) for n in range(200)))
    found = taken_from(gathering)
    assert found[0].hints == (Protocol.HTTP,)
    assert len(found[0].sources) == 200


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("1.2.3.4:80\x1b]0;x\x07", "1.2.3.4:80?]0;x?"),
        ("a\u202eb\u2066c\x00d\x85e", "a?b?c?d?e"),
        ("http://joe:secret@300.1.1.1:80", "http://***@300.1.1.1:80"),
        ("http://x:{{KEY}}@evil:80", "http://***@evil:80"),
        ("300.1.1.1:80:joe:secret", "300.1.1.1:80:***:***"),
        ("socks5 300.1.1.1 1080 joe secret", "socks5 300.1.1.1 1080 *** ***"),
        ('{"ip":"x","username":"joe","pass":"secr', '{"ip":"x","username":"***","pass":"***"'),
        ("x" * 200, "x" * 79 + "\u2026"),
        ("Việt Nam".encode().decode("latin-1"), "Việt Nam"),
    ],
)  # fmt: skip
def test_malformed_examples_are_fit_to_be_shown(raw: str, clean: str) -> None:
    assert shown(raw) == clean


def test_at_most_five_examples_are_kept() -> None:
    assert tally_of([Malformed(str(n)) for n in range(9)]).examples == list("01234")
