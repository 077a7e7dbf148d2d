from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.model.shown import visible, without_credentials

anything = st.text(st.characters())  # surrogates too
hostile = st.lists(
    st.sampled_from(["\x1b]0;x\x07", "\r\n", "\x9b31m", "\u202e", "a", "1.2.3.4:80", "\ud800"])
).map("".join)


@given(st.one_of(anything, hostile))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = visible(text)
    assert all(unicodedata.category(one) not in {"Cc", "Cs", "Zl", "Zp"} for one in shown)
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f"
    )
    shown.encode()


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_an_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:pass@1.2.3.4:80", "http://***@1.2.3.4:80"),
        ("socks5://u@h", "socks5://***@h"),
        ("azenv:http://u:p@ss@judge/x?q=a@b", "azenv:http://***@judge/x?q=a@b"),
        ("two http://a:b@c and https://d:e@f", "two http://***@c and https://***@f"),
        ("http://1.2.3.4/?mail=a@b.c", "http://1.2.3.4/?mail=a@b.c"),
        ("no URL: a:b@c", "no URL: a:b@c"),
    ],
)
def test_credentials_of_urls_are_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
