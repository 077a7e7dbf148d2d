"""What the truth calls a liar lies in just the way that it says, seen by curl and openssl."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Iterator
from hashlib import sha256
from urllib.request import urlopen

import pytest

from proxywell.checking.wire import Verifier, path_of
from proxywell.lab.behaviours import BEHAVIOURS
from proxywell.model.failure import FailureKind
from tests.network.lab_client import (
    CLIENT_S,
    OUR_ADDRESS,
    Curled,
    Served,
    Truth,
    curl,
    needs_curl,
    needs_openssl,
    serving,
)

PATHS = ("page.html", "lib.js", "style.css", "a.png", "tool.exe", "pkg.zip", "data.json")
MORE_PATHS = ("big.txt", "empty", "missing", "redir", "cookie")
NONCE = "0123456789abcdef" * 2

pytestmark = needs_curl


@pytest.fixture(scope="module")
def lab() -> Iterator[Served]:
    with serving("--profile", "small", "--seed", "13") as served:
        yield served


def through(lab: Served, truth: Truth, url: str, *more: str) -> Curled:
    return curl(truth, truth["protocols"][0], url, *more)


def fingerprint(seen: Curled) -> tuple[int, str, str]:
    """All of an answer that an honest proxy leaves alone."""
    kept = ("set-cookie", "location", "content-type")
    lines = [line.partition(": ") for line in seen.headers.split("\r\n")[1:]]
    headers = sorted(f"{n.lower()}={v}" for n, _, v in lines if n.lower() in kept)
    return seen.status, ";".join(headers), sha256(seen.body.encode("latin-1")).hexdigest()


def changed_paths(lab: Served, truth: Truth, protocol: str) -> set[str]:
    site = lab.offer["sites"]["http"]
    changed = set()
    for path in (*PATHS, *MORE_PATHS):
        seen = fingerprint(curl(truth, protocol, site + path))
        if seen != honest(lab, path):
            changed.add(path)
    return changed


@functools.cache
def _direct(url: str) -> tuple[int, str, str]:
    command = ["curl", "-s", "-i", "--noproxy", "*", "--max-time", str(CLIENT_S), url]
    got = subprocess.run(command, capture_output=True, check=True).stdout.decode("latin-1")
    head, _, body = got.partition("\r\n\r\n")
    return fingerprint(Curled(0, int(head.split(" ")[1]), body, head))


def honest(lab: Served, path: str) -> tuple[int, str, str]:
    return _direct(lab.offer["sites"]["http"] + path)


TOUCHES = {
    "inserts_script": {"page.html", "missing"},
    "inserts_iframe": {"page.html", "missing"},
    "adds_cookie": {*PATHS, *MORE_PATHS},
    "rewrites_links": {"page.html"},
    "patches_files": {"a.png", "tool.exe", "pkg.zip"},
    "replaces_page": {"page.html"},
    "redirects": {"page.html"},
    "truncates": {"lib.js", "big.txt"},
    "hides_missing": {"missing"},
}


@pytest.mark.parametrize("behaviour", TOUCHES)
def test_a_tamperer_changes_what_its_class_says_and_nothing_else(
    lab: Served, behaviour: str
) -> None:
    truth = lab.one(behaviour)
    changed = changed_paths(lab, truth, truth["protocols"][0])
    grown = {"page.html"} if behaviour == "truncates" else set()  # long enough to be cut as well
    assert changed - grown == TOUCHES[behaviour]


def test_every_tamperer_has_a_line_above(lab: Served) -> None:
    kinds = {truth["behaviour"] for truth in lab.proxies if truth["tampering"]}
    assert kinds - {"sometimes"} == set(TOUCHES)


def test_tampering_reaches_into_plain_tunnels(lab: Served) -> None:
    url = lab.offer["sites"]["http"] + "page.html"
    tried = 0
    for truth in lab.proxies:
        if truth["behaviour"] in {"inserts_script", "inserts_iframe", "rewrites_links"}:
            for protocol in truth["protocols"]:
                tried += protocol != "http"
                assert fingerprint(curl(truth, protocol, url)) != honest(lab, "page.html")
    assert tried


def test_the_one_that_tampers_sometimes_does_it_about_once_in_twenty(lab: Served) -> None:
    truth = lab.one("sometimes")
    url = lab.offer["sites"]["http"] + "page.html"
    bad = [fingerprint(through(lab, truth, url)) != honest(lab, "page.html") for _ in range(120)]
    assert 1 <= sum(bad) <= 20  # p < 1e-3 outside, at one in twenty


def test_honest_ones_change_nothing(lab: Served) -> None:
    quick = [truth for truth in lab.proxies if truth["working"] and truth["behaviour"] != "slow"]
    for truth in quick[:40]:
        protocol = truth["protocols"][0]
        for path in ("page.html", "tool.exe", "missing", "cookie"):
            seen = curl(truth, protocol, lab.offer["sites"]["http"] + path)
            assert fingerprint(seen) == honest(lab, path), (truth, path)


@needs_openssl
@pytest.mark.parametrize(
    ("behaviour", "complaint"),
    [
        ("tls_self_signed", "self-signed certificate"),
        ("tls_wrong_ca", "unable to get local issuer certificate"),
        ("tls_wrong_name", "address mismatch"),
        ("tls_expired", "certificate has expired"),
    ],
)
def test_an_interceptor_shows_a_certificate_with_the_fault_that_it_is_named_for(
    lab: Served, behaviour: str, complaint: str
) -> None:
    truth = lab.one(behaviour)
    site = lab.offer["sites"]["https"].removeprefix("https://").rstrip("/")
    command = ["openssl", "s_client", "-proxy", f"{truth['host']}:{truth['port']}"]
    command += ["-connect", site, "-CAfile", lab.offer["ca_file"], "-verify_return_error"]
    command += ["-verify_ip", "127.0.0.1"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=CLIENT_S, check=False)
    said = (done.stdout + done.stderr).decode("latin-1").lower()
    assert complaint in said, said
    assert curl(truth, "connect", lab.offer["sites"]["https"], "--cacert",
                lab.offer["ca_file"]).code == 60  # fmt: skip
    unverified = curl(truth, "connect", lab.offer["sites"]["https"], "--insecure")
    assert "village library" in unverified.body  # it reads along, and passes everything on


def test_an_interceptor_is_honest_with_plain_http(lab: Served) -> None:
    for behaviour in ("tls_self_signed", "tls_expired"):
        truth = lab.one(behaviour)
        for protocol in truth["protocols"]:
            seen = curl(truth, protocol, lab.azenv)
            assert seen.environment["REMOTE_ADDR"] in truth["exit_ips"]


def signed_answer(lab: Served, truth: Truth, nonce: str) -> bytes:
    url = lab.judge("proxywell:http").rstrip("/") + path_of(nonce)
    return through(lab, truth, url).body.encode("latin-1")


def verdict(lab: Served, body: bytes, nonce: str) -> object:
    verifier = Verifier([lab.offer["public_key"]])
    return verifier.open(body, nonce=nonce, now_s=time.time(), clock_skew_s=30.0)


def test_a_forger_of_signed_answers_lacks_the_key(lab: Served) -> None:
    answer = signed_answer(lab, lab.one("forged_signed"), NONCE)
    assert verdict(lab, answer, NONCE) is FailureKind.JUDGE_BAD_SIGNATURE


def test_forgers_of_unsigned_judges_write_what_those_would(lab: Served) -> None:
    truth = lab.one("forged_azenv")
    assert through(lab, truth, lab.azenv).environment["REMOTE_ADDR"] in truth["exit_ips"]
    truth = lab.one("forged_httpbin")
    page = json.loads(through(lab, truth, lab.judge("httpbin:") + "?show_env=1").body)
    assert page["origin"] in truth["exit_ips"]
    truth = lab.one("forged_ip")
    assert through(lab, truth, lab.judge("ip:")).body.strip() in truth["exit_ips"]
    for kind in ("azenv", "httpbin", "ip"):  # without the judge, or a key, nothing is signed
        answer = signed_answer(lab, lab.one(f"forged_{kind}"), NONCE)
        assert isinstance(verdict(lab, answer, NONCE), FailureKind)


def test_forgers_never_ask_the_judge(lab: Served) -> None:
    for kind in ("azenv", "httpbin", "ip", "signed"):
        seen = through(lab, lab.one(f"forged_{kind}"), "http://127.0.0.1:1/nothing")
        assert seen.status == 200


def test_a_replayer_gives_an_old_answer_to_a_new_question(lab: Served) -> None:
    truth = lab.one("replayed")
    first = signed_answer(lab, truth, NONCE)
    other = NONCE[::-1]
    assert not isinstance(verdict(lab, first, NONCE), FailureKind)
    assert verdict(lab, signed_answer(lab, truth, other), other) is FailureKind.JUDGE_REPLAY


def test_the_exit_of_an_own_address_proxy_is_the_clients(lab: Served) -> None:
    truth = lab.one("own_address")
    assert through(lab, truth, lab.azenv).environment["REMOTE_ADDR"] == OUR_ADDRESS
    assert truth["exit_ip"] is None


def reached(seen: Curled) -> bool:
    return seen.code == 0 and seen.status == 200


def test_judges_only_lets_every_judge_through_and_no_site(lab: Served) -> None:
    truth = lab.one("judges_only")
    for kind in ("azenv:", "httpbin:", "ip:"):
        assert reached(through(lab, truth, lab.judge(kind)))
    assert not reached(through(lab, truth, lab.offer["sites"]["http"]))


def test_one_judge_only_lets_the_first_judge_through_and_no_other(lab: Served) -> None:
    truth = lab.one("one_judge_only")
    assert reached(through(lab, truth, lab.azenv))
    assert reached(through(lab, truth, lab.azenv))
    assert not reached(through(lab, truth, lab.judge("httpbin:")))


def test_first_request_only_fails_the_second(lab: Served) -> None:
    truth = lab.one("first_request_only")
    assert reached(through(lab, truth, lab.azenv))
    assert not reached(through(lab, truth, lab.azenv))


def test_every_liar_says_what_is_needed_to_notice_it(lab: Served) -> None:
    liars = [truth for truth in lab.proxies if truth["group"] == "liars"]
    assert {truth["behaviour"] for truth in liars} == {
        name for name, behaviour in BEHAVIOURS.items() if behaviour.group == "liars"
    }
    for truth in liars:
        assert truth["needs"] or truth["behaviour"] == "own_address"


def test_the_unsigned_judges_tell_the_truth_directly(lab: Served) -> None:
    with urlopen(lab.judge("ip:"), timeout=CLIENT_S) as answer:
        assert answer.read().strip() == b"127.0.0.1"
    with urlopen(lab.judge("httpbin:") + "?show_env=1", timeout=CLIENT_S) as answer:
        assert json.load(answer)["origin"] == "127.0.0.1"
