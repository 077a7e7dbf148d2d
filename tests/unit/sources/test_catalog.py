from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from proxywell.errors import UsageError
from proxywell.sources.catalog import catalogue, load_catalogue, named_sources
from proxywell.sources.parse import Form

ENTRY = """
[[source]]
name = "a"
place = "https://example.com/a.txt"
form = "text"
licence = "MIT"
interval_s = 900
"""


def test_the_catalogue_names_sixty_public_sources_with_form_and_licence() -> None:
    specs = catalogue()
    assert len(specs) >= 60
    assert len({urlsplit(spec.place).path.split("/")[1] for spec in specs}) >= 40  # publishers
    for spec in specs:
        assert spec.is_url
        assert spec.form is not Form.AUTO
        assert spec.licence
        assert spec.interval_s >= 900
        assert not spec.named


def test_a_sound_catalogue_is_read() -> None:
    (spec,) = load_catalogue(ENTRY)
    assert (spec.name, spec.form, spec.hint, spec.interval_s) == ("a", Form.TEXT, None, 900)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("https://example.com", "http://example.com"), "no https URL"),
        (("https://example.com", "https://me:pw@example.com"), "no https URL"),
        (('form = "text"', 'form = "xml"'), "Invalid enum value 'xml'"),
        (('form = "text"', 'form = "auto"'), "form and licence"),
        (('form = "text"\n', ""), "form and licence"),
        (('"MIT"', '""'), "form and licence"),
        (("900", "899"), "every 15 minutes"),
        (("form", "from"), "unknown field"),
        (('"text"', '"text"\nhint = "ftp"'), "Invalid enum value 'ftp'"),
    ],
)
def test_an_unsound_catalogue_is_refused(change: tuple[str, str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        load_catalogue(ENTRY.replace(*change))


def test_no_name_and_no_place_comes_twice() -> None:
    with pytest.raises(ValueError, match="the name 'a' comes twice"):
        load_catalogue(ENTRY + ENTRY.replace("a.txt", "b.txt"))
    with pytest.raises(ValueError, match="comes twice"):
        load_catalogue(ENTRY + ENTRY.replace('"a"', '"b"'))


def test_what_the_user_names_is_a_source_once() -> None:
    specs = named_sources(["list.txt", "-", "https://example.com/x", "list.txt", "HTTP://a/#top"])
    assert [(spec.name, spec.place, spec.is_url) for spec in specs] == [
        ("list.txt", "list.txt", False),
        ("-", "-", False),
        ("https://example.com/x", "https://example.com/x", True),
        ("http://a/", "http://a/", True),
    ]
    assert all(spec.named and spec.form is Form.AUTO for spec in specs)


def test_what_is_secret_in_a_url_is_asked_for_but_never_shown() -> None:
    url = "https://me:pw@example.com/list?api_key=sesame&protocol=http&Token=t"
    (spec,) = named_sources([url])
    assert spec.place == url
    assert spec.name == "https://example.com/list?api_key=***&protocol=http&Token=***"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://example.com/x", "gopher://x"])
def test_other_schemes_are_wrong_use(place: str) -> None:
    with pytest.raises(UsageError, match="is not read") as caught:
        named_sources([place])
    assert caught.value.exit_status == 2
