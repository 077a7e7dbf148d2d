"""What this machine knows of its own addresses without asking anybody."""

from __future__ import annotations

import socket


def outgoing_addresses() -> frozenset[str]:
    """The machine's own addresses that face the world, by family; loopback is none of them.

    Nothing is sent: a datagram socket learns its local address when it is given a remote one.
    """
    found = set()
    for family, remote in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((remote, 9))
                local = str(probe.getsockname()[0]).partition("%")[0]
        except OSError:  # no such family, or no route
            continue
        if local != "::1" and not local.startswith(("127.", "fe80:")):
            found.add(local)
    return frozenset(found)
