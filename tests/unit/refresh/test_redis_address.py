"""A Redis URL is read whole or refused in one sentence, and never shown with its password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxywell.config.schema import RedisSettings
from proxywell.config.secret import Secret
from proxywell.errors import SettingsError
from proxywell.refresh.ledgers.redis_address import RedisAddress

some_text = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=9)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:6379", "no scheme"),
        ("rediis://127.0.0.1", "did you mean redis?"),
        ("radiss://127.0.0.1", "did you mean rediss?"),
        ("http://127.0.0.1:6379", "unknown scheme 'http'"),
        ("redis://127.0.0.1:63x9", "the port '63x9' is not a number"),
        ("redis://127.0.0.1:99999", "the port 99999 is above 65535"),
        ("redis://127.0.0.1:0", "port 0 is none"),
        ("redis://127.0.0.1/first", "the database 'first' is not a number"),
        ("redis://127.0.0.1/-1", "the database '-1' is not a number"),
        ("redis://:secret@/0", "no host"),
        ("redis://[::1/0", "is no host"),
        ("unix://relative/path", "does not begin with a slash"),
        ("rediss://127.0.0.1?ssl_ca_cert=x", "did you mean ssl_ca_certs?"),
        ("redis://127.0.0.1?ssl_ca_certs=x", "unknown option 'ssl_ca_certs'"),
        ("redis://:a/b@127.0.0.1:1/0", "written as %2F"),
        ("redis://127.0.0.1/0#1", "written as %2F"),
        ("unix://", "does not begin with a slash"),
    ],
)
def test_an_error_in_the_url_is_told_with_the_form_that_is_right(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=r"^redis\.url: .*write redis://") as raised:
        RedisAddress.parse(url)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@127.0.0.1:63x9",
        "u:hunter2@127.0.0.1",
        "redis://:hunter2@[::1/0",
        "redis://:hunter2/x@127.0.0.1:1/0",
        "redis://:hunter2?x@127.0.0.1:1/0",
        "redis://:hunter2#x@127.0.0.1:1/0",
        "redis://:x#hunter2@127.0.0.1:1/0",
        "unix://:x/hunter2@/run/s",
        "unix://hunter2@run/s",
        "rediz://:hunter2@127.0.0.1:1/0",
    ],
)
def test_no_error_tells_the_password(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        RedisAddress.parse(Secret(url))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("host", ["10.0.0.7", "redis.example", "[2001:db8::1]", "0.0.0.0"])
def test_another_machine_is_not_spoken_to_in_plaintext_unless_allowed(host: str) -> None:
    with pytest.raises(SettingsError, match="allow_plaintext"):
        RedisAddress.parse(f"redis://:pw@{host}:6379/0")
    RedisAddress.parse(f"rediss://:pw@{host}:6379/0")
    RedisAddress.parse(f"redis://:pw@{host}:6379/0", allow_plaintext=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_this_machine_is_spoken_to_as_it_is(host: str) -> None:
    assert RedisAddress.parse(f"redis://{host}").port == 6379


def test_what_is_shown_has_no_password_and_no_files() -> None:
    address = RedisAddress.parse("rediss://me:hunter2@h.example/3?ssl_ca_certs=/ca.pem")
    assert address.shown == "rediss://me@h.example:6379/3"
    assert "hunter2" not in repr(address)
    socket = RedisAddress.parse("unix://:hunter2@/run/redis.sock?db=2")
    assert socket.shown == "unix:///run/redis.sock?db=2"


def test_the_settings_give_prefix_and_patience() -> None:
    settings = RedisSettings(url=Secret("redis://localhost"), prefix="mine", answer_s=0.5)
    address = RedisAddress.of(settings)
    assert (address.host, address.prefix, address.answer_s) == ("localhost", "mine", 0.5)
    with pytest.raises(SettingsError, match=r"redis\.url"):
        RedisAddress.of(RedisSettings())


@given(
    user=st.none() | some_text,
    password=st.none() | some_text,
    database=st.integers(0, 999),
    place=st.sampled_from(["redis://HERE127.0.0.1:7", "rediss://HERE[::1]", "unix://HERE/a b/s"]),
)
def test_a_url_is_read_back_as_it_was_written(
    user: str | None, password: str | None, database: int, place: str
) -> None:
    bare = RedisAddress.parse(place.replace("HERE", ""))
    address = RedisAddress(
        scheme=bare.scheme,
        host=bare.host,
        port=bare.port,
        path=bare.path,
        database=database,
        username=user,
        password=None if password is None else Secret(password),
        tls=(("ssl_ca_certs", "/some where/ca.pem"),) if bare.scheme == "rediss" else (),
    )
    assert RedisAddress.parse(address.url) == address
