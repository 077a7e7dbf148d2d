"""The lab's page names everything that profiles and truth files can hold."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from proxywell.lab.behaviours import BEHAVIOURS
from proxywell.lab.lab import LabOffer
from proxywell.lab.profile import Profile
from proxywell.lab.proxy import Need, Truth

PAGE = Path(__file__).parents[3] / "docs" / "operating" / "lab.md"
SPAN = re.compile(r"`\[?([a-z0-9_]+)\]?`")
SPELT_OUT = {f"socks_refuses_{code}" for code in (*range(2, 8), 92)}  # "1 to 8", "91 to 93"


def fields_of(struct: type) -> set[str]:
    names: set[str] = set()
    for entry in msgspec.structs.fields(struct):
        names.add(entry.name)
        if isinstance(entry.type, type) and issubclass(entry.type, msgspec.Struct):
            names |= fields_of(entry.type)
    return names


def test_every_field_behaviour_and_need_is_on_the_page() -> None:
    named = set(SPAN.findall(PAGE.read_text(encoding="utf-8")))
    wanted = fields_of(Profile) | fields_of(Truth) | fields_of(LabOffer)
    wanted |= set(BEHAVIOURS) - SPELT_OUT
    wanted |= {need.value for need in Need}
    assert wanted - named <= {"seed", "profile", "exits", "latency", "anonymity"}
