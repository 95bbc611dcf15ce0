"""Writes the README's generated parts, settings, errors and presets, from the code: `python -m tests.make_readme`."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.command import error_table
from pipeline.presets import PRESETS
from pipeline.settings import PREFIX, Settings

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_table() -> str:
    """The `LIVERY_*` variables as a Markdown table."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows]) + "\n"


def presets_table() -> str:
    """The presets as a Markdown table."""
    rows = [
        f"| `{name}` | {', '.join(_said(*field) for field in fields.items())} |" for name, fields in PRESETS.items()
    ]
    return "\n".join(["| preset | sets |", "|---|---|", *rows]) + "\n"


def _said(field: str, value: object) -> str:
    if isinstance(value, tuple):
        return " and ".join(f"`{part}`" for part in value)
    return f"`{field}` {str(value).lower() if isinstance(value, bool | str) else f'{value:g}'}"


def render_readme(text: str) -> str:
    """`text` with what stands between the markers made anew."""
    for name, table in (("settings", settings_table()), ("errors", error_table()), ("presets", presets_table())):
        pattern = rf"<!-- {name} -->\n.*?(?=<!-- end -->)"
        text = re.sub(pattern, lambda _, made=f"<!-- {name} -->\n{table}": made, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def main() -> None:
    """Bring the README up to date."""
    README.write_text(render_readme(README.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
