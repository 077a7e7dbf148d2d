"""Where settings come from, and the sentences that say what is wrong with them."""

from __future__ import annotations

import os
import pickle
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, field

from proxywell.config.loader import Loaded, OriginKind, build, gather, load
from proxywell.config.places import make_ready, state_directory
from proxywell.config.schema import RefreshSettings, Section, Settings
from proxywell.config.secret import Secret
from proxywell.config.tree import expectation, table_of, value_at
from proxywell.errors import InputMissingError, SettingsError, StateError
from proxywell.model.shown import visible

TABLE = table_of(Settings)


class VaultSettings(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A section with secrets, as the real tree will have."""

    password: Annotated[Secret, Meta(description="What opens it.")] = Secret("")
    token: Annotated[Secret | None, Meta(description="May be missing.")] = None


class Tree(Section, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A settings tree for the tests of secrets."""

    vault: VaultSettings = field(default_factory=VaultSettings)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the settings files of whoever runs the tests out of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def loaded(text: str = "", **environ: str) -> Loaded:
    Path("given.toml").write_text(text, encoding="utf-8")
    return load(Path("given.toml"), {}, environ)


def refusal(text: str = "", **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(text, **environ)
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_anything_given_every_setting_is_the_default() -> None:
    found = load(None, {}, {})
    assert found.settings == Settings()
    assert found.file is None
    assert set(found.origins) == set(TABLE)
    assert {origin.kind for origin in found.origins.values()} == {OriginKind.DEFAULT}


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default() -> None:
    Path("a.toml").write_text(
        "[checking]\nmax_sockets = 1\nconnect_hard_s = 9\nanswer_hard_s = 31\n", encoding="utf-8"
    )
    found = load(
        Path("a.toml"),
        {"checking.max_sockets": 3},
        {"PROXYWELL_CHECKING__MAX_SOCKETS": "2", "PROXYWELL_CHECKING__CONNECT_HARD_S": "10"},
        flags={"checking.max_sockets": "--max-sockets"},
    )
    checking = found.settings.checking
    assert (checking.max_sockets, checking.connect_hard_s, checking.answer_hard_s) == (3, 10, 31)
    assert {path: str(found.origins[f"checking.{path}"]) for path in
            ("max_sockets", "connect_hard_s", "answer_hard_s", "answer_soft_s")} == {
        "max_sockets": "flag --max-sockets",
        "connect_hard_s": "environment PROXYWELL_CHECKING__CONNECT_HARD_S",
        "answer_hard_s": "file a.toml",
        "answer_soft_s": "default",
    }  # fmt: skip


def test_the_file_here_is_taken_before_the_users_own(tmp_path: Path) -> None:
    own = tmp_path / "config" / "proxywell" / "proxywell.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[refresh]\nmin_count = 2\n", encoding="utf-8")
    assert load(None, {}, {}).settings.refresh.min_count == 2
    Path("proxywell.toml").write_text("[refresh]\nmin_count = 3\n", encoding="utf-8")
    found = load(None, {}, {})
    assert found.settings.refresh.min_count == 3
    assert found.file == Path("proxywell.toml")


def test_the_environment_gives_lists_numbers_truth_and_nothing() -> None:
    found = loaded(
        "[refresh]\nchunk_size = 5\n",
        PROXYWELL_JUDGES="azenv:http://a/, ip:https://b/ ,",
        PROXYWELL_NETWORK__ALLOW_PRIVATE="true",
        PROXYWELL_REFRESH__LEASE_S="7.5",
        PROXYWELL_REFRESH__CHUNK_SIZE="",
        PROXYWELL_CHECKING__SOURCE_ADDRESS="127.0.0.2",
        UNRELATED="x",
        PROXYWELL_TEST_PROFILE="deep",
    ).settings
    assert found.judges == ("azenv:http://a/", "ip:https://b/")
    assert found.network.allow_private is True
    assert found.refresh.lease_s == 7.5
    assert found.refresh.chunk_size is None
    assert found.checking.source_address == "127.0.0.2"


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("max_sockets = 1", {}, ["given.toml", "max_sockets"]),
        ("[cheking]\n", {}, ["given.toml", "'cheking'", "did you mean checking?"]),
        ("[checking]\nmax_socket = 1", {}, ["did you mean checking.max_sockets?"]),
        ("[checking]\nMax-Sockets = 1", {}, ["did you mean checking.max_sockets?"]),
        ("judge = 1", {}, ["write [judge]"]),
        ("'refresh.lease_s' = 9", {}, ["no section or setting 'refresh.lease_s'"]),
        ("x" * 2**19 + " = 1", {}, ["no section or setting 'xxx", "…"]),
        ("", {"PROXYWELL_CHECKING__MAX_SOCKET": "1"},
         ["PROXYWELL_CHECKING__MAX_SOCKET ", "did you mean PROXYWELL_CHECKING__MAX_SOCKETS?"]),
        ("", {"PROXYWELL_JUDGE": "x"}, ["did you mean PROXYWELL_JUDGES?"]),
        ("", {"PROXYWELL_JUDGES_FILE": "x"}, ["PROXYWELL_JUDGES_FILE names no setting"]),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest_one(
    text: str, environ: dict[str, str], said: list[str]
) -> None:
    sentence = refusal(text, **environ)
    assert all(part in sentence for part in said), sentence


@pytest.mark.parametrize(
    ("text", "environ", "sentence"),
    [
        ("[checking]\nmax_sockets = 0", {},
         "checking.max_sockets is 0 (file given.toml); give a whole number from 1 to 100000"),
        ("[checking]\nmax_sockets = true", {},
         "checking.max_sockets is True (file given.toml); give a whole number from 1 to 100000"),
        ("", {"PROXYWELL_CHECKING__MAX_SOCKETS": "many"},
         ("checking.max_sockets is 'many' (environment PROXYWELL_CHECKING__MAX_SOCKETS); "
         "give a whole number from 1 to 100000")),
        ("[refresh]\nlease_s = nan", {},
         "refresh.lease_s is nan (file given.toml); give a number above 0 up to 3600"),
        ("[refresh]\nlease_s = inf", {},
         "refresh.lease_s is inf (file given.toml); give a number above 0 up to 3600"),
        ("[refresh]\nchunk_size = 0", {},
         ("refresh.chunk_size is 0 (file given.toml); give a whole number from 1 to 100000 "
         "or nothing")),
        ("[log]\nlevel = 0x" + "f" * 5_000, {},
         ("log.level is a number beyond all measure (file given.toml); give one of debug, error, "
         "info, warning")),
        ("judges = 'azenv:http://u:secret@h/'", {},
         "judges is 'azenv:http://***@h/' (file given.toml); give a list, each entry a text"),
        ("[log]\nformat = 'yaml'", {},
         "log.format is 'yaml' (file given.toml); give one of json, text"),
        ("[network]\nallow_private = 'yes'", {},
         "network.allow_private is 'yes' (file given.toml); give true or false"),
        ("[refresh]\nbeat_s = 2", {},
         ("refresh.lease_s must cover three of beat_s, or one lost packet costs a chunk "
         "(lease_s = 5.0, default, beat_s = 2.0, file given.toml)")),
    ],
)  # fmt: skip
def test_a_wrong_value_is_said_with_its_name_value_origin_and_range(
    text: str, environ: dict[str, str], sentence: str
) -> None:
    assert refusal(text, **environ) == sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[checking\n", "is not TOML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (b"a = " + b"[" * 20_000, "is not TOML"),
        (b"a = " + b"9" * 5_000, "is not TOML"),
        (b"# " + b"x" * 2**20, "longer than"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_by_name(content: bytes, said: str) -> None:
    Path("bad.toml").write_bytes(content)
    with pytest.raises(SettingsError, match=rf"bad\.toml .*{said}"):
        load(Path("bad.toml"), {}, {})


def test_a_byte_order_mark_is_no_reason_to_refuse() -> None:
    Path("bom.toml").write_bytes(b"\xef\xbb\xbf[refresh]\nmin_count = 4\n")
    assert load(Path("bom.toml"), {}, {}).settings.refresh.min_count == 4


@pytest.mark.parametrize(("name", "said"), [("absent.toml", "is not there"), (".", "directory")])
def test_a_named_file_must_be_a_file(name: str, said: str) -> None:
    with pytest.raises(InputMissingError, match=said) as caught:
        load(Path(name), {}, {})
    assert caught.value.exit_status == 2


toml_values = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.text(max_size=9),
        st.datetimes(), st.dates(), st.times(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)  # fmt: skip


@given(
    values=st.dictionaries(st.sampled_from(sorted(TABLE)), toml_values, max_size=3),
    environ=st.dictionaries(
        st.sampled_from(sorted(spec.variable for spec in TABLE.values())),
        st.text(max_size=9),
        max_size=3,
    ),
)
def test_whatever_is_given_comes_out_checked_or_is_refused_in_one_line(
    values: Mapping[str, Any], environ: Mapping[str, str]
) -> None:
    try:
        found = load(None, values, environ).settings
    except SettingsError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert msgspec.convert(msgspec.to_builtins(found), Settings) == found
    assert visible(sentence) == sentence


def test_every_range_is_checked_at_both_ends() -> None:
    wrong = 0
    for path, spec in TABLE.items():
        info = msgspec.json.schema(spec.annotation, schema_hook=lambda _kind: {"type": "string"})
        numbers = [info, *info.get("anyOf", [])]
        for number in numbers:
            beyond = {
                "minimum": -1, "exclusiveMinimum": 0, "maximum": 1,
            }  # fmt: skip
            for end, step in beyond.items():
                if end in number:
                    with pytest.raises(SettingsError, match=path):
                        load(None, {path: number[end] + step}, {})
                    wrong += 1
    assert wrong > 40


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("hunter2")
    vault = VaultSettings(password=secret)
    shown = [repr(secret), str(secret), f"{secret}", repr(vault), repr(Tree(vault=vault))]
    assert not any("hunter2" in text for text in shown)
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") != Secret("hunter3")
    with pytest.raises(TypeError, match="not to be written"):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        msgspec.json.encode(vault)


def test_a_secret_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2\n", encoding="utf-8")
    given_values = gather(
        Tree, None, {}, {"PROXYWELL_VAULT__PASSWORD_FILE": str(tmp_path / "secret")}, {}
    )
    assert build(Tree, given_values).vault.password.reveal() == "hunter2"
    assert (
        str(given_values["vault.password"].origin) == "environment PROXYWELL_VAULT__PASSWORD_FILE"
    )


@pytest.mark.parametrize(
    ("environ", "error", "said"),
    [
        ({"PROXYWELL_VAULT__PASSWORD": "hunter2", "PROXYWELL_VAULT__PASSWORD_FILE": "x"},
         SettingsError, "both set"),
        ({"PROXYWELL_VAULT__TOKEN_FILE": "absent"}, InputMissingError, "absent cannot be read"),
    ],
)  # fmt: skip
def test_a_secrets_file_that_is_missing_or_doubled_is_refused(
    environ: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        gather(Tree, None, {}, environ, {})


def test_a_malformed_secret_is_refused_without_being_shown() -> None:
    Path("vault.toml").write_text("[vault]\npassword = [4711]\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        build(Tree, gather(Tree, Path("vault.toml"), {}, {}, {}))
    assert str(caught.value) == "vault.password is *** (file vault.toml); give a text"


def test_every_setting_has_a_description_and_its_cross_checks_name_fields() -> None:
    for path, spec in TABLE.items():
        assert spec.description.endswith("."), path
        assert expectation(spec.annotation), path
        assert value_at(Settings(), path) == spec.default, path
    hints = typing.get_type_hints(RefreshSettings)
    with pytest.raises(ValueError, match="lease_s must cover three of beat_s"):
        RefreshSettings(lease_s=1.0, beat_s=0.5)
    assert "lease_s" in hints


def test_state_lives_where_it_is_told_else_in_the_users_state_directory(tmp_path: Path) -> None:
    assert state_directory(None) == tmp_path / "state" / "proxywell"
    assert state_directory(Path("here")) == tmp_path / "here"
    assert state_directory(Path("~/there")) == tmp_path / "home" / "there"


def test_a_new_state_directory_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    made = make_ready(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert make_ready(made) == made
    assert list(made.iterdir()) == []


def test_a_state_directory_that_cannot_be_used_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StateError, match="is a file; name a directory with --state") as caught:
        make_ready(tmp_path / "file")
    assert caught.value.exit_status == 1
    with pytest.raises(StateError, match="cannot be written"):
        make_ready(tmp_path / "file" / "below")
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StateError, match="Permission denied"):
            make_ready(tmp_path / "locked")
