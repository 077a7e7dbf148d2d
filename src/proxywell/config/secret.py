"""A setting that must not be shown."""

from __future__ import annotations

from typing import Final

HIDDEN: Final = "***"


class Secret:
    """A text that shows itself as ``***``; only ``reveal`` gives it away.

    Compared by its text. A setting of this type may be given by a file: the variable's name
    with ``_FILE`` behind it names the file, whose one trailing newline is dropped.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that uses it."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return HIDDEN

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be written anywhere")
