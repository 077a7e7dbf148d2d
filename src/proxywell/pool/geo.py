"""Country and network of an exit address, from databases that the user gives; none are shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from proxywell.telemetry.events import PoolDatabaseIgnored, emit

if TYPE_CHECKING:
    import maxminddb

_REMEMBERED_MAX: Final = 200_000


class Place(Struct, frozen=True, gc=False):
    """Where an address is: an ISO 3166 code in upper case, and its network's number."""

    country: str | None = None
    asn: int | None = None


_NOWHERE: Final = Place()


class Geo:
    """Looks addresses up; a database that is missing or corrupt is ignored with one remark."""

    def __init__(self, geo_file: str | None, asn_file: str | None) -> None:
        self._databases = [
            opened for file in (geo_file, asn_file) if file and (opened := _opened(file))
        ]
        self._remembered: dict[str, Place] = {}

    def place(self, address: str | None) -> Place:
        """Say where an address is; every field is None where the databases do not know."""
        if address is None or not self._databases:
            return _NOWHERE
        known = self._remembered.get(address)
        if known is None:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[address] = self._look_up(address)
        return known

    def _look_up(self, address: str) -> Place:
        country: str | None = None
        asn: int | None = None
        for database in list(self._databases):
            file, reader = database
            try:
                record: Any = reader.get(address)
            except _broken() as error:
                self._databases.remove(database)
                emit(PoolDatabaseIgnored(file=file, reason=str(error)))
                continue
            except ValueError:
                continue  # an IPv6 address in a database of IPv4, or no address at all
            if isinstance(record, dict):
                country = country or _country(record)
                asn = asn or _asn(record)
        return Place(country, asn)


def _broken() -> tuple[type[Exception], ...]:
    """What the reader raises on a database that is not whole."""
    import maxminddb  # noqa: PLC0415 - takes 30 ms, and most users have no database

    return maxminddb.InvalidDatabaseError, UnicodeDecodeError, OSError


def _opened(file: str) -> tuple[str, maxminddb.Reader] | None:
    import maxminddb  # noqa: PLC0415 - takes 30 ms, and most users have no database

    try:
        return file, maxminddb.open_database(Path(file))
    except FileNotFoundError:
        reason = "it is not there"
    except (maxminddb.InvalidDatabaseError, ValueError, OSError) as error:
        reason = str(error)
    emit(PoolDatabaseIgnored(file=file, reason=reason))
    return None


def _country(record: dict[str, Any]) -> str | None:
    """The country's code, as MaxMind (``country.iso_code``) or as flat databases spell it."""
    country = record.get("country") or record.get("registered_country")
    code = country.get("iso_code") if isinstance(country, dict) else country
    code = code or record.get("country_code")
    plain = isinstance(code, str) and len(code) == 2 and code.isascii() and code.isalpha()
    return str(code).upper() if plain else None


def _asn(record: dict[str, Any]) -> int | None:
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, str):
        digits = number.upper().removeprefix("AS")
        number = int(digits) if digits.isdecimal() else None
    return number if isinstance(number, int) and 0 < number < 2**32 else None
