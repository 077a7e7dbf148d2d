"""Country and network of exits, from databases that may be good, bad or not there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from proxywell.config.schema import PoolSettings
from proxywell.pool.geo import Geo, Place
from proxywell.pool.pool import Pool
from proxywell.pool.selection import MemberFilter, NothingFits
from tests.pool_makers import SetClock, candidate, endpoint, passed
from tests.unit.pool.mmdb import write_mmdb

COUNTRIES: dict[str, dict[str, Any]] = {
    "1.0.0.0/24": {"country": {"iso_code": "DE"}},
    "2.0.0.0/8": {"registered_country": {"iso_code": "fr"}},
    "3.0.0.0/8": {"country_code": "US", "asn": "AS64501"},
    "4.0.0.0/8": {"country": {"iso_code": "</td><script>"}},
}


@pytest.fixture
def countries(tmp_path: Path) -> str:
    file = tmp_path / "country.mmdb"
    write_mmdb(file, COUNTRIES)
    return str(file)


@pytest.fixture
def networks(tmp_path: Path) -> str:
    file = tmp_path / "asn.mmdb"
    write_mmdb(
        file,
        {
            "::100:0/104": {"autonomous_system_number": 64500},  # 1.0.0.0/8
            "2001:db8::/32": {"autonomous_system_number": 64502},
        },
        ip_version=6,
    )
    return str(file)


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("1.0.0.7", Place("DE", 64500)),
        ("2.1.1.1", Place("FR", None)),
        ("3.1.1.1", Place("US", 64501)),
        ("4.1.1.1", Place(None, None)),  # a country is two letters and nothing else
        ("9.9.9.9", Place(None, None)),
        ("2001:db8::5", Place(None, 64502)),  # the database of countries has no IPv6
        ("not an address", Place(None, None)),
        (None, Place(None, None)),
    ],
)
def test_an_exit_is_where_the_databases_say(
    countries: str, networks: str, address: str | None, place: Place
) -> None:
    geo = Geo(countries, networks)
    assert geo.place(address) == place
    assert geo.place(address) == place  # from memory


def test_a_missing_or_corrupt_database_is_one_remark_and_the_rest_goes_on(
    tmp_path: Path, networks: str, caplog: pytest.LogCaptureFixture
) -> None:
    junk = tmp_path / "junk.mmdb"
    junk.write_bytes(b"\x00" * 4_096)
    for bad in (str(junk), str(tmp_path / "none.mmdb"), str(tmp_path)):
        with caplog.at_level(logging.WARNING, "proxywell"):
            geo = Geo(bad, networks)
        assert geo.place("1.0.0.7") == Place(None, 64500)
        (record,) = caplog.records
        sentence = record.__dict__["event"].sentence()
        assert sentence.startswith(f"{bad} is ignored as a database of countries or networks: ")
        caplog.clear()


def test_a_database_damaged_inside_is_dropped_when_that_shows(
    countries: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(countries)
    data = bytearray(file.read_bytes())
    start = data.index(b"iso_code") - 12
    data[start : start + 12] = b"\xff" * 12
    file.write_bytes(data)
    geo = Geo(countries, None)
    with caplog.at_level(logging.WARNING, "proxywell"):
        assert geo.place("1.0.0.7") == Place()
        assert geo.place("1.0.0.8") == Place()
    assert len(caplog.records) == 1


def test_members_carry_the_country_of_their_exit_not_of_their_address(
    tmp_path: Path, countries: str, networks: str
) -> None:
    settings = PoolSettings(geo_file=countries, asn_file=networks)
    with Pool.open(tmp_path, settings, SetClock()) as pool:
        pool.record("a", 1, [(0, candidate(1), passed(endpoint(1), exit_ip="2.7.7.7"))])
        (member,) = pool.members()
        assert (member.country, member.asn) == ("FR", None)
        assert pool.members(MemberFilter(countries=frozenset({"FR"}))) == [member]
        nothing = pool.choose(MemberFilter(countries=frozenset({"DE"})), 1, lambda: 0.0)
        assert nothing == NothingFits("none of 1 members fits: 1 exit not in DE")


def test_a_database_that_is_given_later_tells_about_members_of_before(
    tmp_path: Path, countries: str
) -> None:
    with Pool.open(tmp_path, PoolSettings(), SetClock()) as pool:
        pool.record("a", 1, [(0, candidate(1), passed(endpoint(1)))])
        assert pool.members()[0].country is None
    with Pool.open(tmp_path, PoolSettings(geo_file=countries), SetClock()) as pool:
        assert pool.members()[0].country == "DE"
