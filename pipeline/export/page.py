"""The before/after page: one HTML file that needs nothing else, with the legend and a switch for each ink's layers."""

from __future__ import annotations

import base64
import hashlib
import io
from html import escape

from PIL import Image

from pipeline.schema import InkReport, Report
from pipeline.types import U8

PHOTO_QUALITY = 85

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #f6f5f2; --card: #ffffff; --line: #d9d7d1; --soft: #6b6f76; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --paper: #17181a; --card: #202225; --line: #34373b; --soft: #9a9ea6; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1500px; margin: 0 auto; padding: 1.2rem; display: grid; gap: 1.2rem;
  grid-template-columns: minmax(0, 1fr) 19rem; }
header, footer { grid-column: 1 / -1; }
h1 { font-size: 1.25rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
header p, footer p { margin: .2rem 0 0; color: var(--soft); }
.view { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: auto; max-height: 82vh; }
.stage { position: relative; width: var(--zoom, 100%); }
.stage svg, .stage img { display: block; width: 100%; height: auto; }
.stage svg { background: repeating-conic-gradient(#ccc 0 25%, #fff 0 50%) 0 0 / 16px 16px; }
.stage img { position: absolute; inset: 0; height: 100%; clip-path: inset(0 calc(100% - var(--cut, 50%)) 0 0); }
.stage i { position: absolute; top: 0; bottom: 0; left: var(--cut, 50%); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 0 1px #0006; pointer-events: none; }
.bar { display: flex; gap: .6rem; align-items: center; margin-top: .8rem; flex-wrap: wrap; }
.bar input[type=range] { flex: 1; min-width: 12rem; accent-color: #c8262b; }
button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 7px;
  padding: .2rem .7rem; cursor: pointer; }
button[aria-pressed=true] { border-color: #c8262b; }
aside { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .9rem;
  align-self: start; }
aside h2 { font-size: 1rem; margin: 0 0 .5rem; }
aside ul { list-style: none; margin: .6rem 0 0; padding: 0; }
aside label { display: grid; grid-template-columns: auto 1.4rem 1fr auto; gap: .55rem; align-items: center;
  padding: .22rem 0; cursor: pointer; }
aside b { width: 1.4rem; height: 1.4rem; border-radius: 5px; border: 1px solid var(--line); }
aside span { overflow-wrap: anywhere; line-height: 1.25; }
aside small { color: var(--soft); display: block; }
aside data { font-variant-numeric: tabular-nums; color: var(--soft); }
.unused { opacity: .45; }
@media (max-width: 900px) { main { grid-template-columns: 1fr; } }
"""

_SCRIPT = """
const stage = document.querySelector('.stage'), cut = document.querySelector('#cut');
const show = () => stage.style.setProperty('--cut', cut.value + '%');
cut.addEventListener('input', show); show();
let held = false;
const drag = event => {
  const box = stage.getBoundingClientRect();
  cut.value = Math.min(100, Math.max(0, (event.clientX - box.left) / box.width * 100)); show();
};
stage.addEventListener('pointerdown', event => { held = true; event.preventDefault(); drag(event); });
addEventListener('pointermove', event => { if (held) drag(event); });
addEventListener('pointerup', () => { held = false; });
const zooms = document.querySelectorAll('button[data-zoom]');
zooms.forEach(button => button.addEventListener('click', () => {
  const zoom = button.dataset.zoom;
  stage.style.setProperty('--zoom', zoom === 'fit' ? '100%' : stage.dataset.width * zoom + 'px');
  zooms.forEach(other => other.setAttribute('aria-pressed', other === button));
}));
const boxes = [...document.querySelectorAll('input[data-layer]')];
const apply = box => stage.querySelectorAll('g[data-ink]').forEach(layer => {
  if (layer.dataset.ink === box.dataset.layer && layer.getAttribute('fill') === box.value)
    layer.style.display = box.checked ? '' : 'none';
});
boxes.forEach(box => box.addEventListener('change', () => apply(box)));
document.querySelectorAll('button[data-all]').forEach(button => button.addEventListener('click', () =>
  boxes.forEach(box => { box.checked = button.dataset.all === 'on'; apply(box); })));
"""


def render_page(name: str, rgb: U8, svg: str, report: Report) -> str:
    """The page of one finished photo.

    Args:
        name: the photo's file name, for the title.
        rgb: uint8 [H, W, 3], sRGB, the photo in the working frame.
        svg: the audited SVG text, set into the page as it is.
        report: of the same job.

    Returns:
        HTML text. It loads nothing: its policy allows its own script by hash, and pictures from `data:` URLs.
    """
    photo = io.BytesIO()
    Image.fromarray(rgb).save(photo, "JPEG", quality=PHOTO_QUALITY)
    address = "data:image/jpeg;base64," + base64.b64encode(photo.getvalue()).decode("ascii")
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    legend = "\n".join(_legend_row(ink) for ink in report.palette)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} · Livery</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header><h1>{escape(name)}</h1><p>{escape(_summary(report))}</p></header>
<section aria-label="Before and after">
<div class="view" tabindex="0"><div class="stage" data-width="{rgb.shape[1]}">
{svg}
<img src="{address}" alt="The photo">
<i></i>
</div></div>
<div class="bar">
<label for="cut">Photo</label>
<input id="cut" type="range" min="0" max="100" step="0.5" value="50" aria-label="How much of the photo is shown">
<span>Illustration</span>
<button data-zoom="fit" aria-pressed="true">Fit</button>
<button data-zoom="1" aria-pressed="false">100 %</button>
<button data-zoom="2" aria-pressed="false">200 %</button>
<button data-zoom="4" aria-pressed="false">400 %</button>
</div>
</section>
<aside>
<h2>Inks</h2>
<button data-all="on">All</button> <button data-all="off">None</button>
<ul>
{legend}
</ul>
</aside>
<footer><p>Layers are stacked: hiding one shows what lies below it.</p></footer>
</main>
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _legend_row(ink: InkReport) -> str:
    name, used = escape(ink.name), bool(ink.paths)
    detail = f"{ink.hex} · {ink.paths} path{'' if ink.paths == 1 else 's'}" if used else f"{ink.hex} · not used"
    return (
        f"<li><label{'' if used else ' class=unused'}>"
        f'<input type="checkbox" data-layer="{name}" value="{ink.hex}"{" checked" if used else " disabled"}>'
        f'<b style="background:{ink.hex}"></b><span>{name}<small>{detail}</small></span>'
        f"<data>{ink.coverage_pct if ink.coverage_pct is not None else 0.0:.1f} %</data></label></li>"
    )


def _summary(report: Report) -> str:
    size = "" if report.size is None else f"{report.size.width} × {report.size.height} · "
    kilobytes = (report.bytes if report.bytes is not None else 0) / 1000
    seconds = report.timings_ms.total / 1000
    return (
        f"{size}{report.paths} paths · {report.nodes} nodes · {kilobytes:.0f} kB of SVG · "
        f"{report.engine} engine · {seconds:.2f} s"
    )
