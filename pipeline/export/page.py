"""The before/after page: one HTML file that needs nothing else, with the legend and a switch for each ink's layers."""

from __future__ import annotations

import base64
import hashlib
import io
from html import escape

from PIL import Image

from pipeline.export.svg import rounded_down
from pipeline.schema import InkReport, Report
from pipeline.types import U8

PHOTO_QUALITY = 85

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #f6f5f2; --card: #fff; --line: #d9d7d1; --soft: #62666d;
  --mark: #c8262b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --paper: #17181a; --card: #202225; --line: #3a3d42; --soft: #a3a7af; --mark: #f0716b; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1600px; margin: 0 auto; padding: 1.4rem; display: grid; gap: 1.2rem;
  grid-template-columns: minmax(0, 1fr) 20rem; }
header { grid-column: 1 / -1; }
h1 { font-size: 1.3rem; font-weight: 600; line-height: 1.3; margin: 0; overflow-wrap: anywhere; }
header p, .note { margin: .4rem 0 0; color: var(--soft); font-variant-numeric: tabular-nums; }
.view { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: auto; max-height: 84vh; }
.stage { position: relative; margin: 0 auto; width: min(100%, calc(82vh * var(--aspect))); cursor: ew-resize; }
.stage > svg, .stage > img { display: block; width: 100%; height: auto; user-select: none; }
.stage > svg { background: repeating-conic-gradient(#ccc 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
.stage > img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 calc(100% - var(--cut, 50%)) 0 0); }
.stage > i { position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 0 1px #0006; pointer-events: none; }
.bar { display: flex; gap: .6rem; align-items: center; margin-top: .8rem; flex-wrap: wrap; }
.bar input { flex: 1; min-width: 12rem; accent-color: var(--mark); }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 7px;
  padding: .2rem .7rem; cursor: pointer; }
button[aria-pressed=true] { border-color: var(--mark); box-shadow: inset 0 0 0 1px var(--mark); }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px; }
aside { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1rem; align-self: start; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
aside ul { list-style: none; margin: .7rem 0 0; padding: 0; }
aside label { display: grid; grid-template-columns: auto 1.5rem 1fr auto; gap: .6rem; align-items: center;
  padding: .22rem 0; cursor: pointer; }
aside input { margin: 0; accent-color: var(--mark); }
.swatch { width: 1.5rem; height: 1.5rem; border-radius: 5px; border: 1px solid var(--line); }
aside span { overflow-wrap: anywhere; line-height: 1.3; }
small { color: var(--soft); display: block; }
data { font-variant-numeric: tabular-nums; }
.unused { opacity: .5; cursor: default; }
.off { display: none; }
@media (max-width: 900px) { main { grid-template-columns: minmax(0, 1fr); } }
"""

_SCRIPT = """
const stage = document.querySelector('.stage'), cut = document.querySelector('#cut');
const show = () => stage.style.setProperty('--cut', cut.value + '%');
cut.addEventListener('input', show); show();
let held = false;
const drag = event => {
  const box = stage.getBoundingClientRect();
  cut.value = (event.clientX - box.left) / box.width * 100; show();
};
stage.addEventListener('pointerdown', event => {
  if (event.pointerType !== 'mouse' || event.button !== 0) return;
  held = true; event.preventDefault(); drag(event);
});
addEventListener('pointermove', event => { if (held) drag(event); });
addEventListener('pointerup', () => { held = false; });
const zooms = document.querySelectorAll('button[data-zoom]');
zooms.forEach(button => button.addEventListener('click', () => {
  const zoom = button.dataset.zoom, view = stage.parentElement;
  const x = (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth;
  const y = (view.scrollTop + view.clientHeight / 2) / view.scrollHeight;
  stage.style.width = zoom === 'fit' ? '' : stage.dataset.width * zoom + 'px';
  view.scrollTo(x * view.scrollWidth - view.clientWidth / 2, y * view.scrollHeight - view.clientHeight / 2);
  zooms.forEach(other => other.setAttribute('aria-pressed', other === button));
}));
const inks = [...document.querySelectorAll('input[data-layer]')];
const layers = [...stage.querySelectorAll('g[data-ink]')];
const apply = ink => layers
  .filter(layer => layer.dataset.ink === ink.dataset.layer && layer.getAttribute('fill') === ink.value)
  .forEach(layer => layer.classList.toggle('off', !ink.checked));
inks.forEach(ink => { apply(ink); ink.addEventListener('change', () => apply(ink)); });
document.querySelectorAll('button[data-all]').forEach(button => button.addEventListener('click', () =>
  inks.forEach(ink => { ink.checked = !ink.disabled && button.dataset.all === 'on'; apply(ink); })));
"""


_LAYERS = {
    "stacked": "Layers are stacked: hiding one shows what lies below it.",
    "abutting": "Layers meet edge to edge: hiding one shows nothing below it.",
}


def render_page(name: str, rgb: U8, svg: str, report: Report) -> str:
    """The page of one finished photo.

    Args:
        name: the photo's file name, for the title.
        rgb: uint8 [H, W, 3], sRGB, the photo in the working frame.
        svg: the audited SVG text, set into the page as it is.
        report: of the same job.

    Returns:
        HTML text. It loads nothing: its policy allows its own style and script by their hashes, and pictures from
        `data:` URLs.
    """
    height_px, width_px = rgb.shape[:2]
    style = f"{_STYLE}.stage {{ --aspect: {width_px / height_px:.6f}; }}\n"
    title, legend = escape(name), "\n".join(_legend_row(ink) for ink in report.palette)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(style)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Livery</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>{title}</h1><p>{_summary(report)}</p></header>
<section aria-label="Before and after">
<div class="view" tabindex="0" role="region" aria-label="Photo over illustration">
<div class="stage" data-width="{width_px}">
{svg}<img src="{_data_url(rgb)}" alt="The photo">
<i></i>
</div></div>
<div class="bar">
<label for="cut">Photo</label>
<input id="cut" type="range" min="0" max="100" step="0.5" value="50" autocomplete="off">
<span>Illustration</span>
<button type="button" data-zoom="fit" aria-pressed="true">Fit</button>
<button type="button" data-zoom="1" aria-pressed="false">100 %</button>
<button type="button" data-zoom="2" aria-pressed="false">200 %</button>
<button type="button" data-zoom="4" aria-pressed="false">400 %</button>
</div>
{_notes(report)}</section>
<aside>
<h2>Inks</h2>
<button type="button" data-all="on">All</button> <button type="button" data-all="off">None</button>
<ul>
{legend}
</ul>
<p class="note">{_LAYERS[report.options.output.stacking]}</p>
</aside>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _policy(style: str) -> str:
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src '{_hash_source(style)}'; script-src '{_hash_source(_SCRIPT)}'"
    )


def _hash_source(text: str) -> str:
    """`sha256-…` of an inline style or script, as Content Security Policy Level 3 has it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _data_url(rgb: U8) -> str:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=PHOTO_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _legend_row(ink: InkReport) -> str:
    name, used = escape(ink.name), bool(ink.paths)
    amount = _counted(ink.paths, "path") if used else "not used"
    detail = amount if ink.name == ink.hex else f"{ink.hex} · {amount}"
    look, state = ("", " checked") if used else (' class="unused"', " disabled")
    return (
        f"<li><label{look}>"
        f'<input type="checkbox" autocomplete="off" data-layer="{name}" value="{ink.hex}"{state}>'
        f'<svg class="swatch" aria-hidden="true"><rect width="100%" height="100%" fill="{ink.hex}"/></svg>'
        f"<span>{name}<small>{detail}</small></span>"
        f"<data>{_percent(ink.coverage_pct)}</data></label></li>"
    )


def _percent(share_pct: float | None) -> str:
    if share_pct is None:
        return ""
    return "&lt; 0.1 %" if 0 < share_pct < 0.05 else f"{share_pct:.1f} %"


def _counted(count: int | None, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _summary(report: Report) -> str:
    parts = [
        "" if report.size is None else f"{report.size.width} × {report.size.height} px",
        _counted(report.paths, "path"),
        _counted(report.nodes, "node"),
        "" if report.bytes is None else f"{report.bytes / 1000:.1f} kB of SVG",
        "" if report.certificate is None else f"{rounded_down(report.certificate.agreement_pct, 2)} % true to its map",
        f"{report.engine} engine",
        f"{report.timings_ms.total / 1000:.2f} s",
    ]
    return " · ".join(part for part in parts if part != "")


def _notes(report: Report) -> str:
    return "".join(f'<p class="note">{escape(warning.message)}</p>\n' for warning in report.warnings)
