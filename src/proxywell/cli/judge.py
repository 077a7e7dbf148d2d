"""``proxywell judge``: serve our judge on a machine of one's own."""

from __future__ import annotations

import asyncio
import signal
import ssl
from ipaddress import ip_address
from pathlib import Path

import rich_click as click
from msgspec import Struct

from proxywell.cli.options import Output, output_option, settings_option
from proxywell.cli.output import show_object
from proxywell.config.schema import Settings
from proxywell.errors import UsageError
from proxywell.net import loop

_DEFAULT_PLACE = "127.0.0.1:8085"


class Offer(Struct, kw_only=True):
    """What a judge offers; its JSON form is for programs.

    Attributes:
        urls: Where it listens, http first.
        judges: The same as ``--judge`` takes them.
        public_key: For ``judge.public_keys``.
        spki_pin: For ``judge.spki_pins``; None without https.
        ca_file: For ``judge.ca_file``; None without https or with a certificate of the user's.
    """

    urls: list[str]
    judges: list[str]
    public_key: str
    spki_pin: str | None = None
    ca_file: str | None = None


class _Tls(Struct):
    """What https is served with."""

    context: ssl.SSLContext
    spki_pin: str
    ca_file: str | None


@click.group()
def judge() -> None:
    """Serve our judge: a page that reports each request as it arrived, signed."""


@judge.command()
@click.option(
    "--http",
    "http_places",
    multiple=True,
    metavar="HOST:PORT",
    help=f"Listen here in the clear; may be repeated; default: {_DEFAULT_PLACE}. "
    "[::]:80 is IPv6 alone, 0.0.0.0:80 is IPv4.",
)
@click.option(
    "--https",
    "https_places",
    multiple=True,
    metavar="HOST:PORT",
    help="Listen here for TLS; may be repeated.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    help="Name or address under which clients reach it; it goes into a certificate made here.",
)
@click.option(
    "--cert",
    "cert_file",
    type=click.Path(path_type=Path),
    help="Certificate chain in PEM; without one the judge makes its own.",
)
@click.option(
    "--key", "key_file", type=click.Path(path_type=Path), help="The certificate's key in PEM."
)
@output_option(Output.TABLE, Output.JSON)
@settings_option
def serve(
    *,
    http_places: tuple[str, ...],
    https_places: tuple[str, ...],
    names: tuple[str, ...],
    cert_file: Path | None,
    key_file: Path | None,
    output: Output,
    settings: Settings,
    state_dir: Path,
) -> None:
    """Serve until SIGTERM or Ctrl-C; print what a checker needs to know first.

    The signing key is made at the first start and kept in the state directory. Addresses of
    clients are not logged.

    Exit status: 0 stopped as asked, 1 it cannot listen or its key cannot be read, 2 wrong use.
    """
    from proxywell.judge.keys import load_or_make_key
    from proxywell.judge.server import JudgeServer, Listen

    del settings  # the judge has none of its own
    if (cert_file is None) != (key_file is None):
        raise UsageError("--cert and --key belong together; name both or neither")
    http = [
        Listen.parse(place) for place in http_places or (() if https_places else (_DEFAULT_PLACE,))
    ]
    https = [Listen.parse(place) for place in https_places]
    tls = None
    if https:
        hosts = [place.host for place in https]
        tls = _tls(hosts, names, cert_file, key_file, state_dir)
    elif cert_file is not None:
        raise UsageError("--cert is of use with --https HOST:PORT only; name where to listen")

    async def serving() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        server = JudgeServer(
            http=http,
            https=https,
            tls=tls.context if tls else None,
            key=load_or_make_key(state_dir),
        )
        async with server:
            urls = [_reached(url, names) for url in (*server.http_urls, *server.https_urls)]
            offer = Offer(
                urls=urls,
                judges=[f"proxywell:{url}" for url in urls],
                public_key=server.public_key,
                spki_pin=tls.spki_pin if tls else None,
                ca_file=tls.ca_file if tls else None,
            )
            show_object(offer, output, _words)
            await stop.wait()

    loop.run(serving())


def _tls(
    hosts: list[str],
    names: tuple[str, ...],
    cert_file: Path | None,
    key_file: Path | None,
    state_dir: Path,
) -> _Tls:
    from proxywell.judge.certificate import (
        context_from_files,
        load_or_make_certificate,
        spki_pin,
    )

    if cert_file is not None and key_file is not None:
        context = context_from_files(cert_file, key_file)
        return _Tls(context, spki_pin(cert_file.read_bytes()), None)
    in_it = list(dict.fromkeys([*names, *(host for host in hosts if not _is_wildcard(host))]))
    if not in_it:
        raise UsageError(
            f"a certificate for {hosts[0]} fits nobody; say with --name under which name or "
            "address clients reach this machine"
        )
    certificate, anchor = load_or_make_certificate(state_dir, in_it)
    return _Tls(certificate.server_context(), certificate.spki_pin, str(anchor.absolute()))


def _is_wildcard(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return False


def _reached(url: str, names: tuple[str, ...]) -> str:
    """The URL with a name that clients can use where it listens on every address."""
    for wildcard in ("//0.0.0.0:", "//[::]:"):
        if wildcard in url and names:
            name = f"[{names[0]}]" if ":" in names[0] else names[0]
            return url.replace(wildcard, f"//{name}:")
    return url


def _words(offer: Offer) -> str:
    lines = [f"serving {', '.join(offer.urls)}", "", "on the machine that checks:"]
    lines.append(
        "  proxywell refresh " + " ".join(f"--judge {judge_url}" for judge_url in offer.judges)
    )
    lines += ["", "and in its proxywell.toml:", "  [judge]"]
    lines.append(f'  public_keys = ["{offer.public_key}"]')
    if offer.spki_pin is not None:
        lines.append(f'  spki_pins = ["{offer.spki_pin}"]')
    if offer.ca_file is not None:
        lines.append(f'  ca_file = "judge-ca.pem"  # a copy of {offer.ca_file}')
    if any(wildcard in url for url in offer.urls for wildcard in ("//0.0.0.0:", "//[::]:")):
        lines += ["", "with this machine's name or address in place of 0.0.0.0 or [::]"]
    return "\n".join(lines)
