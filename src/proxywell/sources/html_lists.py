"""Lists in HTML: the rows of tables, as a person would see them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from proxywell.sources.columns import columns_of
from proxywell.sources.errors import BrokenListError, SourceLimitError
from proxywell.sources.grammar import Entry, Malformed, parse_fields, parse_line

HTML_MAX_BYTES = 4 * 2**20  # a tree takes some forty times its text
_CELLS_MAX = 64
_CELL_CHARS = 512
_EXCERPT_CHARS = 200
_NOT_SHOWN = "script, style, template, noscript, [hidden]"
_HIDING = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_HIDING_CLASS = re.compile(
    r"\.([A-Za-z_][A-Za-z0-9_-]*)\s*\{[^{}]*?(?:display\s*:\s*none|visibility\s*:\s*hidden)"
)


def parse_html(data: bytes) -> Iterator[Entry | Malformed]:
    """Read the tables of a page that hold proxies; without one, the lines of its ``<pre>``.

    A table holds proxies if its header names host and port, or if one of its rows is well-formed.
    Each of its rows with a data cell is then one entry; the header is none. What a browser would
    not show (scripts, and cells that a style hides: decoys) is not there.

    Args:
        data: The page in UTF-8 or what reads like it; at most ``HTML_MAX_BYTES``.

    Raises:
        SourceLimitError: The page is longer.
        BrokenListError: The page holds no proxies: an error page, a login, a picture gallery.
    """
    if len(data) > HTML_MAX_BYTES:
        raise SourceLimitError(f"the HTML page is longer than {HTML_MAX_BYTES} bytes")
    page = LexborHTMLParser(data)
    _drop_what_is_hidden(page)
    found = False
    for table in page.css("table"):
        for item in _table_items(table):
            found = True
            yield item
    if not found:
        for block in page.css("pre"):
            items = [_line_item(line) for line in _lines_of(block)]
            if any(isinstance(item, Entry) for item in items):
                found = True
                yield from items
    if not found:
        raise BrokenListError("it is an HTML page without a table of proxies")


def _drop_what_is_hidden(page: LexborHTMLParser) -> None:
    classes: set[str] = set()
    for style in page.css("style"):
        classes.update(_HIDING_CLASS.findall(style.text() or ""))
    for node in page.css(_NOT_SHOWN):
        node.decompose()
    for node in page.css("table [style], table [class]"):
        attributes = node.attributes
        hides = _HIDING.search(attributes.get("style") or "") is not None
        if hides or not classes.isdisjoint((attributes.get("class") or "").split()):
            node.decompose()


def _table_items(table: LexborNode) -> list[Entry | Malformed]:
    rows = [row for row in table.css("tr") if _is_of(row, table)]
    if not rows:
        return []
    columns = columns_of(_texts(rows[0]))
    items: list[Entry | Malformed] = []
    for row in rows if columns is None else rows[1:]:
        cells = _texts(row)
        if all(cell.tag != "td" for cell in row.iter()):
            continue
        entry = parse_fields(cells) if columns is None else columns.read(cells)
        items.append(entry or Malformed(" ".join(cells)[:_EXCERPT_CHARS]))
    if columns is None and not any(isinstance(item, Entry) for item in items):
        return []
    return items


def _is_of(row: LexborNode, table: LexborNode) -> bool:
    """True if the row is the table's own, not one of a table inside it."""
    above = row.parent
    while above is not None and above.tag != "table":
        above = above.parent
    return above is not None and above.mem_id == table.mem_id


def _texts(row: LexborNode) -> list[str]:
    """What the row's own cells show; not those of a table inside it."""
    cells = [cell for cell in row.iter() if cell.tag in ("td", "th")][:_CELLS_MAX]
    return [(cell.text(deep=True) or "").strip()[:_CELL_CHARS] for cell in cells]


def _lines_of(block: LexborNode) -> list[str]:
    lines = [line.strip(" \t") for line in re.split("[\r\n]+", block.text(deep=True) or "")]
    return [line for line in lines if line and not line.startswith("#")]


def _line_item(line: str) -> Entry | Malformed:
    return parse_line(line) or Malformed(line[:_EXCERPT_CHARS])
