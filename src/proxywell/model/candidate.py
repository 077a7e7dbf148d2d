"""An endpoint that a source calls a proxy; nothing is known yet."""

from __future__ import annotations

from msgspec import Struct

from proxywell.model.endpoint import Endpoint, Protocol


class Candidate(Struct, frozen=True, array_like=True, gc=False):
    """One distinct endpoint with what the lists said about it.

    Attributes:
        endpoint: Its identity; the same endpoint in two lists is one candidate.
        hints: Protocols that lists named, most frequent first; empty when none did.
        sources: Names of the sources that list it, in the order in which they were read.
    """

    endpoint: Endpoint
    hints: tuple[Protocol, ...] = ()
    sources: tuple[str, ...] = ()
