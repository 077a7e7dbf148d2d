"""What a text from outside must go through before a person sees it."""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls, DEL, line separators, marks and overrides of direction, BOM: whatever a
# terminal, a log viewer or an editor could obey instead of show.
CONTROLS: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")


def visible(text: str) -> str:
    r"""Write control characters out (``\x1b``), so that a terminal shows and never obeys them.

    Line ends are control characters too: what comes back is one line. Lone surrogates, which
    no encoding takes, are written out as well.
    """
    return CONTROLS.sub(lambda found: _written_out(ord(found[0])), text)


def without_credentials(text: str) -> str:
    """Put ``***`` in place of user and password in every URL that a text contains."""
    return _CREDENTIALS.sub("***@", text)


def _written_out(code: int) -> str:
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"
