"""Whether a site lets programs read one of its pages (RFC 9309)."""

from __future__ import annotations

from urllib.parse import urljoin
from urllib.robotparser import RobotFileParser

from proxywell.sources.errors import SourceRefusedError, SourceStatusError
from proxywell.sources.fetch import Fetcher, Validators

PROGRAM = "proxywell"
_READ_BYTES = 500 * 1024  # what a reader must at least take (RFC 9309, section 2.5)


async def ask_leave(fetcher: Fetcher, url: str) -> None:
    """Ask the site's ``robots.txt`` about a page; the caller bounds the time.

    A site without that file (a status from 400 to 499) allows everything; one that cannot say
    allows nothing (RFC 9309, section 2.3.1).

    Args:
        fetcher: Asks.
        url: The page.

    Raises:
        SourceRefusedError: The page is not for programs.
        SourceError: The site cannot say.
    """
    text = bytearray()
    try:
        async with fetcher.fetch(urljoin(url, "/robots.txt"), Validators()) as fetched:
            async for block in fetched.blocks():
                text += block
                if len(text) >= _READ_BYTES:
                    break
    except SourceStatusError as error:
        if 400 <= error.status < 500:
            return
        raise
    rules = RobotFileParser()
    rules.parse(text[:_READ_BYTES].decode("utf-8", "replace").splitlines())
    if not rules.can_fetch(PROGRAM, url):
        raise SourceRefusedError("its robots.txt asks programs not to read this page")
