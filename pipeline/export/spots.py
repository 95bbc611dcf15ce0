"""The names that inks go by on a press: what a spot colour's plate and its layer are called."""

from __future__ import annotations

from pipeline.types import Palette

LONGEST_NAME_BYTES = 127
"""Of a name object (ISO 32000-1, annex C; PostScript Language Reference, 3rd edition, appendix B)."""

RESERVED = ("All", "None")
"""Names that mean every plate and no plate (ISO 32000-1, 8.6.6.4)."""


def spot_names(palette: Palette) -> tuple[str, ...]:
    """One name for each ink, no two the same: the ink's own, cut to `LONGEST_NAME_BYTES` of UTF-8.

    A name that is reserved or taken gets the first number from 2 that makes it new.

    Raises:
        ValueError: a name holds U+0000 or half a surrogate pair, which a name object can't.
    """
    names = list(RESERVED)
    for ink in palette.inks:
        if "\0" in ink.name:
            raise ValueError("a spot colour's name can't hold U+0000")
        name, number = cut(ink.name, LONGEST_NAME_BYTES), 1
        while name in names:
            number += 1
            name = f"{cut(ink.name, LONGEST_NAME_BYTES - len(f' {number}'))} {number}"
        names.append(name)
    return tuple(names[len(RESERVED) :])


def cut(text: str, longest_bytes: int) -> str:
    """The longest beginning of `text` in whole characters that `longest_bytes` of UTF-8 hold."""
    return text.encode()[:longest_bytes].decode(errors="ignore")
