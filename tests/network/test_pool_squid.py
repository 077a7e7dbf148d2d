"""Squid itself reads the lines that an export writes for it. It opens no socket for that."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from proxywell.model.endpoint import Endpoint, Protocol
from proxywell.model.member import PoolMember
from proxywell.model.verdict import Verdict
from proxywell.pool.formats import as_squid
from tests.pool_makers import passed

SQUID = shutil.which("squid") or shutil.which("squid", path="/usr/sbin:/usr/local/sbin")


def member(whom: Endpoint, *protocols: Protocol) -> PoolMember:
    verdict = passed(whom, protocols=protocols)
    return PoolMember(**{name: getattr(verdict, name) for name in Verdict.__struct_fields__})


@pytest.mark.skipif(SQUID is None, reason="squid is not installed: apt-get install squid")
def test_squid_accepts_the_exported_lines(tmp_path: Path) -> None:
    members = [
        member(Endpoint("1.0.0.1", 8080), Protocol.CONNECT, Protocol.HTTP),
        member(Endpoint("1.0.0.2", 8080, "me", "50%:off"), Protocol.HTTP),
        member(Endpoint("2001:db8::1", 8080), Protocol.CONNECT),
        member(Endpoint("1.0.0.4", 1080), Protocol.SOCKS5),
    ]
    config = tmp_path / "squid.conf"
    config.write_text(f"http_port 127.0.0.1:3128\n{as_squid(members)}")
    assert SQUID is not None
    read = subprocess.run(
        [SQUID, "-k", "parse", "-f", str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert read.returncode == 0, read.stderr
    complaints = [
        line
        for line in read.stderr.splitlines()
        if "cache_peer" in line and "Processing" not in line
    ]
    assert complaints == []
    config.write_text(f"http_port 127.0.0.1:3128\n{as_squid(members)}cache_peer nonsense\n")
    broken = subprocess.run(
        [SQUID, "-k", "parse", "-f", str(config)], capture_output=True, check=False, timeout=30
    )
    assert broken.returncode != 0  # it does read them
