"""When what a source shows is not believed: it turned empty, tenfold, or into a page. Pure."""

from __future__ import annotations

from proxywell.sources.catalog import SourceSpec
from proxywell.sources.copies import Copy
from proxywell.sources.parse import Form

NO_ENTRIES = "it holds no entries"
OUTSIZED_FACTOR = 10
OUTSIZED_MIN = 1_000  # below, ten times as many is no flood
OUTSIZED_BELIEVED_S = 24 * 3600.0  # a list that stays large for a day has grown


def fault_of(
    spec: SourceSpec, form: Form, *, read: int, unique: int, copy: Copy | None, now_s: float
) -> str | None:
    """Say what is wrong with a list that was read whole, or None.

    Args:
        spec: What the source is said to be.
        form: What it was read as.
        read: Entries in it.
        unique: Distinct well-formed candidates in it.
        copy: What is known about the last good copy, if there is one.
        now_s: Seconds since the epoch.

    Returns:
        The fault in a few words that fit behind the source's name and a colon.
    """
    if form is Form.HTML and spec.form in (Form.TEXT, Form.JSON):
        return f"it shows an HTML page where a list in {spec.form.value} was expected"
    if read == 0:
        return NO_ENTRIES
    if unique == 0:
        return f"none of its {read} entries is well-formed"
    if copy is not None and is_outsized(unique, copy):
        since_s = now_s if copy.outsized_since_s is None else copy.outsized_since_s
        if now_s - since_s < OUTSIZED_BELIEVED_S:
            return f"it shows {unique} candidates where {copy.unique} were usual"
    return None


def is_outsized(unique: int, copy: Copy) -> bool:
    """True if a list shows ten times as many candidates as its last good copy, or more."""
    return unique >= OUTSIZED_MIN and unique >= copy.unique * OUTSIZED_FACTOR
