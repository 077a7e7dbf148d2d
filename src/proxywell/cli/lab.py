"""``proxywell lab``: serve the simulated internet until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from proxywell.cli.options import Duration, Output, output_option, place_options
from proxywell.model.shown import visible
from proxywell.net import loop

if TYPE_CHECKING:
    from proxywell.lab.lab import LabOffer


@click.group()
def lab() -> None:
    """Serve a simulated internet on loopback: lists, proxies, judges, and the truth."""


@lab.command()
@click.option(
    "--profile",
    "profile_name",
    default="small",
    show_default=True,
    metavar="NAME|FILE.toml",
    help="What the fleet is made of: small, realistic, hard, field, hostile, or a file.",
)
@click.option(
    "--seed", default=1, show_default=True, help="The same seed makes the same fleet and lists."
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 1_000_000),
    help="How many, instead of the profile's number.",
)
@click.option("--seconds", type=Duration(min=0), help="Stop by itself after so long.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where lists, truth and certificates go; default: a temporary one, removed at the end.",
)
@output_option(Output.JSON, Output.TABLE)
@place_options
def serve(
    *,
    profile_name: str,
    seed: int,
    candidates: int | None,
    seconds: float | None,
    directory: Path | None,
    output: Output,
    config_file: Path | None,
    state_dir: Path | None,
) -> None:
    """Serve lists, proxies and judges until SIGTERM or Ctrl-C.

    Prints one JSON object with everything that a client needs, then serves.

    Exit status: 0 stopped as asked, 1 the lab cannot listen, 2 no such profile, or a faulty one.
    """
    from proxywell.lab.profile import load_profile

    del config_file, state_dir  # every command takes them; the lab keeps no state
    profile = load_profile(profile_name)

    async def serving() -> None:
        from proxywell.lab.lab import Lab

        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with Lab(profile, seed, candidates=candidates, directory=directory) as served:
            show(served.offer, output)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), seconds)

    def show(offer: LabOffer, form: Output) -> None:
        if form is Output.JSON:
            click.echo(msgspec.json.encode(offer).decode())
            return
        click.echo("\n".join(visible(line) for line in in_words(offer)))

    loop.run(serving())


def in_words(offer: LabOffer) -> Iterator[str]:
    """What the lab offers, laid out for a person.

    Args:
        offer: Of a lab that serves.
    """
    groups = ", ".join(f"{count} {name}" for name, count in offer.counts["groups"].items())
    yield f"profile {offer.profile}, seed {offer.seed}: {groups}"
    yield "lists"
    for one in offer.lists:
        entries = "1 entry" if one.entries == 1 else f"{one.entries} entries"
        yield f"  {one.url}  {entries}, {one.protocol or 'any protocol'}"
    yield "judges"
    yield from (f"  {judge}" for judge in (*offer.judges, *offer.ipv6_judges))
    yield "sites"
    yield from (f"  {url}" for url in offer.sites.values())
    yield "settings that it needs"
    yield f"  checking.source_address  {offer.source_address}"
    yield f"  judge.public_keys        {offer.public_key}"
    yield f"  judge.ca_file            {offer.ca_file}"
    yield "truth"
    yield f"  {offer.truth}"
    yield f"  {offer.truth_file}"
