"""What the checker says of proxies that others wrote, against what their manuals say."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from proxywell import app
from proxywell.config.schema import CheckingSettings, JudgeSettings, NetworkSettings, Settings
from proxywell.judge.server import JudgeServer, Listen
from proxywell.model.candidate import Candidate
from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.verdict import JudgeTrust, Verdict
from proxywell.net import loop
from tests.network.third_party import PEERS, Peer, running

AUTHORITY = trustme.CA()


@asynccontextmanager
async def settings_with_a_judge(directory: Path) -> AsyncIterator[Settings]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)
    ca_file = directory / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(ca_file))
    here = Listen("127.0.0.1", 0)
    async with JudgeServer(http=[here, here], https=[here], tls=context) as judge:
        urls = (*judge.http_urls, *judge.https_urls)
        yield Settings(
            judges=tuple(f"proxywell:{url}" for url in urls),
            network=NetworkSettings(allow_private=True),
            # some wait for more when they are spoken to in a protocol that they do not know
            checking=CheckingSettings(answer_soft_s=2, answer_hard_s=4),
            judge=JudgeSettings(public_keys=(judge.public_key,), ca_file=str(ca_file)),
        )


async def verdicts_on(peer: Peer, port: int, directory: Path) -> list[Verdict]:
    """One verdict for each thing that a list may say: nothing, the truth, something wrong."""
    verdicts = []
    async with (
        settings_with_a_judge(directory) as settings,
        app.open_checker(settings) as checker,
    ):
        for hints in ((), tuple(sorted(peer.protocols))[:1], (Protocol.SOCKS5,)):
            candidate = Candidate(Endpoint("127.0.0.1", port), hints, ("test",))
            verdicts += [verdict async for _, verdict in checker.check([candidate])]
    return verdicts


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_the_verdict_is_what_the_manual_says(peer: Peer) -> None:
    program = peer.found()
    if program is None:
        pytest.skip(f"{peer.program} is not installed: {peer.install_line}")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        home.chmod(0o755)
        with running(peer, program, home) as port:
            verdicts = loop.run(verdicts_on(peer, port, home))
    assert len(verdicts) == 3
    for verdict in verdicts:
        assert verdict.working, verdict
        # 4a is SOCKS4 with a name, and not every manual says whether it is understood
        assert set(verdict.protocols) - {Protocol.SOCKS4A} == peer.protocols, verdict
        assert verdict.exit_ip == "127.0.0.1"
        assert verdict.anonymity is peer.anonymity, verdict
        assert verdict.https is peer.https, verdict
        assert verdict.judge is JudgeTrust.SIGNED
        assert not verdict.intercepts_tls
        assert verdict.tampering is None
