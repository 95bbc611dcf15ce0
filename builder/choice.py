"""Which rows a command is about, and whether their licences and pins allow it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from builder.hub import Source
from models.pins import Pin
from models.registry import REGISTRY, STYLE_LORA, Mode, Row, rows_of
from models.store import is_commercial
from pipeline.errors import ModelMissing

PERMISSIVE = frozenset(
    {"apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "openrail", "openrail++", "creativeml-openrail-m"}
)
"""Licences, as the Hub calls them, that allow commercial work with what the model makes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asked for.

    Attributes:
        modes: of the studio engine.
        optional: names of optional rows that are wanted as well.
        style_lora: where the style LoRA comes from, as `owner/name/path/to/file.safetensors`; None for no other one.
        allow_noncommercial: whether licences are allowed that forbid commercial work.
    """

    modes: tuple[Mode, ...]
    optional: tuple[str, ...] = ()
    style_lora: str | None = None
    allow_noncommercial: bool = False

    def rows(self, volume_pins: Iterable[str] = ()) -> tuple[Row, ...]:
        """The rows, optional ones only where they are asked for, or the volume's own lock has them."""
        style = () if self.style_lora is None else (STYLE_LORA,)
        return rows_of(self.modes, (*self.optional, *style, *volume_pins))

    def source(self, row: Row) -> Source:
        """Where a row's files come from.

        Raises:
            ModelMissing: the deployment chooses that, and did not.
        """
        if row.repo is not None:
            return Source(row.repo, {})
        if self.style_lora is None:
            raise ModelMissing(f"{row.name} has no repository of its own; name one with --style-lora OWNER/NAME/FILE")
        owner, _, rest = self.style_lora.partition("/")
        name, _, path = rest.partition("/")
        if not (owner and name and path.endswith(".safetensors")):
            raise ModelMissing("--style-lora takes OWNER/NAME/FILE.safetensors")
        return Source(f"{owner}/{name}", {row.files[0]: path})


def optional_names() -> tuple[str, ...]:
    """Names of the rows that are there only where they are asked for."""
    return tuple(row.name for row in REGISTRY if row.optional)


def refuse_unpinned(rows: Iterable[Row], pins: Mapping[str, Pin]) -> None:
    """Refuse rows without a pin.

    Raises:
        ModelMissing: names them all.
    """
    unpinned = [row.name for row in rows if row.name not in pins]
    if unpinned:
        raise ModelMissing(f"not pinned to a revision: {', '.join(unpinned)}; builder pin does that, or warm --pin")


def refuse_noncommercial(rows: Iterable[Row], pins: Mapping[str, Pin], *, allowed: bool) -> None:
    """Refuse rows whose licence forbids commercial work, or is not known to allow it.

    Raises:
        ModelMissing: names them all.
    """
    barred = [row.name for row in rows if not is_commercial(row, pins.get(row.name))]
    if barred and not allowed:
        raise ModelMissing(
            f"the licence allows no commercial work, or does not say: {', '.join(barred)}; "
            "--allow-noncommercial where that is right"
        )
