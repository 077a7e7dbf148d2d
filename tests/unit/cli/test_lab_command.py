from __future__ import annotations

from proxywell.cli.lab import in_words
from proxywell.lab.lab import LabOffer, OfferedList
from proxywell.model.endpoint import Protocol


def test_an_offer_is_told_in_words() -> None:
    offer = LabOffer(
        profile="small",
        seed=1,
        lists=(
            OfferedList("http://127.0.0.1:1/a.txt", "/lab/a.txt", Protocol.SOCKS4, 1),
            OfferedList("http://127.0.0.1:1/all.txt", "/lab/all.txt", None, 7),
        ),
        judges=("ip:http://127.0.0.1:2/",),
        ipv6_judges=(),
        public_key="KEY=",
        ca_file="/lab/ca.pem",
        source_address="127.0.0.2",
        truth="http://127.0.0.1:1/truth",
        truth_file="/lab/truth.json",
        sites={"http": "http://127.0.0.1:3/"},
        names={},
        counts={"groups": {"working": 3, "junk": 5}},
    )
    text = "\n".join(in_words(offer))
    assert text.startswith("profile small, seed 1: 3 working, 5 junk\nlists\n")
    assert "  http://127.0.0.1:1/a.txt  1 entry, socks4\n" in text
    assert "  http://127.0.0.1:1/all.txt  7 entries, any protocol\n" in text
    assert "  checking.source_address  127.0.0.2\n" in text
    assert not set("{}[]") & set(text)
