"""Documents say what the code says; events and settings document themselves."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
import string
from dataclasses import dataclass

import click
import pytest

from proxywell.config.schema import Settings
from proxywell.config.tree import expectation, sections_of, table_of
from proxywell.errors import ProxywellError
from proxywell.telemetry.events import Event
from tests.tidy.purity import PURE
from tests.tidy.source import PACKAGE, ROOT
from tools import reference


@pytest.mark.parametrize("page", ["config.md", "cli.md", "events.md", "errors.md", "metrics.md"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    kept = (reference.REFERENCE / page).read_text(encoding="utf-8")
    assert kept == reference.pages()[page], "run `make docs`"


def test_every_command_has_a_sentence_of_help_and_takes_a_place() -> None:
    for name, command in reference.commands():
        assert (command.help or "").partition("\n")[0].endswith("."), name
        options = [one for one in command.params if isinstance(one, click.Option)]
        assert all(option.help for option in options), name
        if not isinstance(command, click.Group):
            assert {"--config", "--state"} <= {text for one in options for text in one.opts}, name


def test_every_setting_is_described() -> None:
    for path, spec in table_of(Settings).items():
        assert spec.description.endswith("."), path
        if path.endswith("_s") and not path.endswith("_per_s"):
            assert "econds" in spec.description, f"{path} does not say its unit"
    for name, section in sections_of(Settings).items():
        assert inspect.getdoc(section), name


def test_every_number_among_the_settings_has_two_ends() -> None:
    for path, spec in table_of(Settings).items():
        told = expectation(spec.annotation)
        assert "number" not in told or ("to" in told.split()), f"{path}: {told}"


def test_every_recipe_is_named_in_contributing() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    told = set(re.findall(r"`make ([a-z]+)`", (ROOT / "CONTRIBUTING.md").read_text("utf-8")))
    assert {"run", "test", "check", "deep", "bench"} <= recipes
    assert recipes == told


def files_named(text: str) -> set[str]:
    """Paths of files that a document names in code marks; ``a/{b,c}.py`` names two."""
    found = set()
    for span in re.findall(r"`([^`\s]+)`", text):
        before, _, rest = span.partition("{")
        inner, _, after = rest.partition("}")
        for path in [f"{before}{name}{after}" for name in inner.split(",")] if rest else [span]:
            if re.match(r"[a-z].*/.*\.(py|md|toml)$", path):
                found.add(path)
    return found


DOCUMENTS = ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "docs/**/*.md"]


@pytest.mark.parametrize("pattern", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(pattern: str) -> None:
    for document in ROOT.glob(pattern):
        named = {path for path in files_named(document.read_text("utf-8")) if "*" not in path}
        homes = (ROOT, PACKAGE, document.parent)
        gone = {path for path in named if not any((home / path).exists() for home in homes)}
        assert gone == set(), document.name


def test_a_planted_name_of_no_file_is_found() -> None:
    assert files_named("see `pool/{score,gone}.py`, `x.py` and `make docs`") == {
        "pool/score.py",
        "pool/gone.py",
    }


def test_the_map_names_the_rules_that_are_held_to_purity() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    told = re.search(r"They are (.*?); a tidy test", text, flags=re.DOTALL)
    assert told is not None
    assert files_named(" ".join(told[1].split())) == set(PURE)


def commands_named(text: str) -> set[str]:
    """Commands of proxywell that a document names, in code marks or in a block of code."""
    words = r"proxywell(?: --debug)? ([a-z]+)(?: ([a-z]+))?"
    shown = re.findall(r"`[^`\n]+`|^    .*$", text, flags=re.MULTILINE)
    return {f"{name} {more}".strip() for span in shown for name, more in re.findall(words, span)}


def unknown_commands(text: str) -> set[str]:
    """Of those, the ones that are no command; behind a command without others stands input."""
    known = {name: isinstance(command, click.Group) for name, command in reference.commands()}
    return {
        name
        for name in commands_named(text)
        if name not in known and known.get(name.partition(" ")[0]) is not False
    }


@pytest.mark.parametrize("pattern", ["README.md", "CONTRIBUTING.md", "docs/operating/*.md"])
def test_every_command_that_a_document_names_is_one(pattern: str) -> None:
    for document in ROOT.glob(pattern):
        assert unknown_commands(document.read_text("utf-8")) == set(), document.name


def test_planted_names_of_no_command_are_found() -> None:
    text = (
        "`proxywell refresh` and `proxywell refesh`, `proxywell job wai ID`\n\n    proxywell lost\n"
    )
    assert unknown_commands(text) == {"refesh", "job wai", "lost"}


def test_decisions_are_numbered_without_gaps_and_short() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(record.name[:4]) for record in records] == list(range(1, len(records) + 1))
    for record in records:
        text = record.read_text(encoding="utf-8")
        assert text.count("\n") <= 60, record.name
        for heading in ("Situation", "Choice", "Given up", "Look again"):
            assert f"**{heading}.**" in text, f"{record.name} has no {heading}"


def flaws(events: list[type[Event]]) -> list[str]:
    """What is wrong with a catalogue of events."""
    found = []
    names = [kind.name for kind in events]
    for kind in events:
        told = (inspect.getdoc(kind) or "").partition("\n")[0]
        fields = {field.name for field in dataclasses.fields(kind)}
        used = {
            re.split(r"[.\[]", name)[0]
            for _, name, _, _ in string.Formatter().parse(told)
            if name is not None
        }
        if names.count(kind.name) > 1:
            found.append(f"{kind.__name__}: the name {kind.name} is used twice")
        if not re.fullmatch(r"[a-z]+(\.[a-z][a-z_]*)+", kind.name):
            found.append(f"{kind.__name__}: {kind.name} is no dotted name")
        if kind.level not in {logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR}:
            found.append(f"{kind.__name__}: no such level")
        if not told.endswith(".") or used - fields:
            found.append(f"{kind.__name__}: the text is no sentence of its facts: {told}")
        if secrets := {name for name in fields if re.search("passw|secret|token|credential", name)}:
            found.append(f"{kind.__name__}: {secrets} may be secret")
    return found


def test_every_event_has_a_name_of_its_own_and_a_sentence_of_its_facts() -> None:
    reference.import_everything()
    assert flaws(reference.kinds_of(Event)) == []


def test_every_error_has_a_code_of_its_own_and_a_documented_status() -> None:
    reference.import_everything()
    kinds = reference.kinds_of(ProxywellError)
    codes = [kind.code for kind in kinds]
    assert sorted(set(codes)) == sorted(codes)
    assert {kind.exit_status for kind in kinds} <= {1, 2, 3, 4}
    assert all(inspect.getdoc(kind) for kind in kinds)


def test_planted_flaws_of_events_are_caught() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Good(Event):
        """{source} was read."""

        name = "sources.read"
        source: str

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Unfilled(Event):
        """{sourc} was read."""

        name = "sources.unfilled"
        source: str

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Telltale(Event):
        """Read."""

        name = "Sources"
        level = 7
        password: str

    assert flaws([Good]) == []
    assert len(flaws([Good, Good])) == 2
    assert len(flaws([Unfilled])) == 1
    assert len(flaws([Telltale])) == 3
