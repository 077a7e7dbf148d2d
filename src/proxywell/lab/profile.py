"""What a simulated fleet is made of: profiles in TOML, validated, with suggestions for mistakes."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from proxywell.errors import InputMissingError, UsageError
from proxywell.lab.behaviours import BEHAVIOURS, FRONTS

Share = Annotated[float, Meta(ge=0, le=1)]
Weight = Annotated[float, Meta(ge=0)]
Weights = dict[str, Weight]

_Z95 = 1.6448536  # 95th percentile of the standard normal


class FleetShares(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many candidates there are and what share of them is what.

    Attributes:
        candidates: Distinct endpoints in all lists together.
        working_share: Share that works by our rules.
        liar_share: Share that passes for working at first sight and does not work by our rules.
        ipv6: How many of the working ones listen on ``::1`` instead, where IPv6 exists.
        one_network_share: Share of working SOCKS5 proxies that sit in one /24.
        front: Weights of the protocols that liars speak: http, connect, http_connect, socks4,
            socks4a, socks5.
    """

    candidates: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    working_share: Share = 0.2
    liar_share: Share = 0.0
    ipv6: Annotated[int, Meta(ge=0, le=100)] = 0
    one_network_share: Share = 0.0
    front: Weights = field(
        default_factory=lambda: {"http": 3.0, "http_connect": 4.0, "socks4a": 1.0, "socks5": 2.0}
    )

    def __post_init__(self) -> None:
        if self.working_share + self.liar_share > 1:
            raise ValueError("working_share and liar_share together must not be above 1")


class AnonymityShares(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Weights of what HTTP forward proxies add to a request; SOCKS adds nothing."""

    transparent: Weight = 35.0
    anonymous: Weight = 13.0
    distorting: Weight = 2.0
    elite: Weight = 50.0

    def __post_init__(self) -> None:
        if self.transparent + self.anonymous + self.distorting + self.elite <= 0:
            raise ValueError("one of the anonymity levels needs a weight above zero")


class Latency(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Time from connect to whole answer: log-normal between proxies and within one.

    Attributes:
        median_s: Over all requests to honest proxies.
        p95_s: 95th percentile over all; not below the median.
        between_share: Share of the variance of ln that lies between proxies; the rest
            is drawn anew for each request.
        cap_s: No answer takes longer.
    """

    median_s: Annotated[float, Meta(ge=0, le=60)] = 0.02
    p95_s: Annotated[float, Meta(ge=0, le=600)] = 0.06
    between_share: Share = 0.26
    cap_s: Annotated[float, Meta(gt=0, le=600)] = 25.0

    def __post_init__(self) -> None:
        if self.p95_s < self.median_s:
            raise ValueError("p95_s must not be below median_s")

    @property
    def sigma(self) -> float:
        """Standard deviation of ln over all requests."""
        if self.median_s == 0:
            return 0.0
        return math.log(self.p95_s / self.median_s) / _Z95

    @property
    def sigma_between(self) -> float:
        """Part of it between proxies."""
        return self.sigma * math.sqrt(self.between_share)

    @property
    def sigma_within(self) -> float:
        """Part of it between two requests to one proxy."""
        return self.sigma * math.sqrt(1 - self.between_share)


class Exits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """From which addresses requests leave; the rest leave from the listed address."""

    other_http: Share = 0.33
    other_socks4: Share = 0.24
    other_socks5: Share = 0.68
    same_network: Share = 0.36  # of those, how many in the listed address's /24
    rotating: Share = 0.14


class Lists(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How candidates are published."""

    duplicates: Share = 0.15
    wrong_hint: Share = 0.0
    malformed_lines: Annotated[int, Meta(ge=0, le=10_000)] = 5


class Churn(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When working proxies are on.

    Attributes:
        mode: ``none``: always; ``model``: three classes per protocol (ephemeral, flaky,
            stable); ``trace``: replay of a presence file.
        speed: Virtual seconds per real second.
        trace: Path of a presence file in NPZ form, for mode ``trace``.
    """

    mode: Annotated[str, Meta(pattern="^(none|model|trace)$")] = "none"
    speed: Annotated[float, Meta(gt=0, le=1_000_000)] = 1.0
    trace: str | None = None

    def __post_init__(self) -> None:
        if self.mode == "trace" and self.trace is None:
            raise ValueError('mode "trace" needs trace, the path of a presence file')


class Profile(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One kind of simulated internet.

    Attributes:
        name: Shown to clients; a file's own name if it says none.
        about: One sentence for people.
        fleet, anonymity, latency, exits, lists, churn: See their classes.
        working, liars, junk: Weights of behaviours by name, as in ``lab.behaviours``.
        every_behaviour: At least one proxy of each behaviour that has a weight above zero.
        ports: Ports that live proxies listen on; with many, one address is many proxies.
    """

    name: str = ""
    about: str = ""
    fleet: FleetShares = field(default_factory=FleetShares)
    anonymity: AnonymityShares = field(default_factory=AnonymityShares)
    latency: Latency = field(default_factory=Latency)
    exits: Exits = field(default_factory=Exits)
    lists: Lists = field(default_factory=Lists)
    churn: Churn = field(default_factory=Churn)
    working: Weights = field(default_factory=dict)
    liars: Weights = field(default_factory=dict)
    junk: Weights = field(default_factory=dict)
    every_behaviour: bool = False
    ports: Annotated[int, Meta(ge=1, le=64)] = 6


def shipped_profiles() -> list[str]:
    """Names of the profiles in the package, sorted."""
    folder = resources.files("proxywell.lab") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir())


def load_profile(name_or_path: str) -> Profile:
    """Read a shipped profile by name, or a file that ends in ``.toml``.

    Raises:
        InputMissingError: There is no such profile or file.
        UsageError: Not TOML, an unknown name (the nearest one is suggested), a value out of
            range, or a group of behaviours with no weight above zero that has a share.
    """
    known = shipped_profiles()
    if name_or_path in known:
        text = (resources.files("proxywell.lab") / "profiles" / f"{name_or_path}.toml").read_text()
        return parse_profile(text, where=name_or_path, name=name_or_path)
    if not name_or_path.endswith(".toml"):
        near = _nearest(name_or_path, known)
        raise InputMissingError(
            f"there is no lab profile {name_or_path!r}{near}; "
            f"take one of {', '.join(known)}, or a file that ends in .toml"
        )
    path = Path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputMissingError(
            f"lab profile {name_or_path} cannot be read ({_why(error)}); name a TOML file"
        ) from error
    return parse_profile(text, where=name_or_path, name=path.stem)


def parse_profile(text: str, *, where: str, name: str) -> Profile:
    """Validate a profile's text.

    Args:
        text: TOML.
        where: Named in errors.
        name: The profile's name if the text gives none.

    Raises:
        UsageError: See ``load_profile``.
    """
    try:
        raw = tomllib.loads(text)
        profile = msgspec.convert({"name": name, **raw}, Profile)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"lab profile {where} is not TOML: {error}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"lab profile {where}: {error}{_suggest(str(error))}") from error
    _check_weights(profile, where)
    return profile


def _check_weights(profile: Profile, where: str) -> None:
    fleet = profile.fleet
    junk_share = 1 - fleet.working_share - fleet.liar_share
    shares = {"working": fleet.working_share, "liars": fleet.liar_share, "junk": junk_share}
    for group, share in shares.items():
        weights: Weights = getattr(profile, group)
        known = [name for name, behaviour in BEHAVIOURS.items() if behaviour.group == group]
        _check_names(weights, known, where=f"lab profile {where}: [{group}]")
        if share > 1e-9 and sum(weights.values()) <= 0:
            raise UsageError(
                f"lab profile {where}: [{group}] names no behaviour with a weight above zero, "
                f"but has a share of {share:.3g}; name some, or change [fleet]"
            )
    _check_names(fleet.front, list(FRONTS), where=f"lab profile {where}: [fleet] front")
    if sum(fleet.front.values()) <= 0:
        raise UsageError(f"lab profile {where}: [fleet] front needs a weight above zero")


def _check_names(weights: Weights, known: list[str], *, where: str) -> None:
    for name in weights:
        if name not in known:
            raise UsageError(f"{where} knows no {name!r}{_nearest(name, known)}")


def _suggest(message: str) -> str:
    unknown = re.search(r"unknown field `([^`]+)`(?: - at `\$\.?([^`]*)`)?", message)
    if unknown is None:
        return ""
    struct: Any = Profile
    for part in filter(None, (unknown.group(2) or "").split(".")):
        fields = {entry.name: entry.type for entry in msgspec.structs.fields(struct)}
        struct = fields.get(part, struct)
    known = [entry.name for entry in msgspec.structs.fields(struct)]
    return _nearest(unknown.group(1), known)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8 text"
