"""`python -m pipeline trace`: any label map to a file, and one clear line for what can't be one."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ezdxf.filemanagement import read as read_dxf
from PIL import Image

from pipeline.command import main
from pipeline.export.audit import audit_svg
from pipeline.request import parse_request
from pipeline.terminal import FINE, SOME_FAILED, UNUSABLE
from pipeline.types import UNPAINTED, Palette

ROOT = Path(__file__).resolve().parent.parent
HEXES = ["#101010", "#F0F0F0", "#C02020"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A label map of 96 × 64 px with a disc, a box and nothing at its right edge; its palette."""
    folder = tmp_path_factory.mktemp("map")
    y, x = np.mgrid[0:64, 0:96]
    index = np.zeros((64, 96), np.uint8)
    index[20:50, 10:60] = 1
    index[(x - 60) ** 2 + (y - 30) ** 2 < 18**2] = 2
    index[:, 90:] = UNPAINTED
    Image.fromarray(index).save(folder / "labels.png")
    (folder / "palette.json").write_text(json.dumps([*HEXES[:2], {"hex": HEXES[2], "name": "Signal red"}]))
    return folder / "labels.png", folder / "palette.json"


def trace(given: tuple[Path, Path], out: Path, *options: str) -> int:
    return main(["trace", *map(str, given), "-o", str(out), *options])


def palette() -> Palette:
    read = parse_request({"palette": [*HEXES[:2], {"hex": HEXES[2], "name": "Signal red"}]}).palette
    assert isinstance(read, Palette)
    return read


@pytest.mark.parametrize("options", [(), ("--stacking", "abutting"), ("--tracer", "vtracer"), ("--tolerance", "2")])
def test_a_label_map_becomes_an_svg_of_its_palette(
    options: tuple[str, ...], given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "map.svg"
    assert trace(given, out, *options) == FINE
    svg = out.read_text("utf-8")
    assert set(audit_svg(svg, palette()).paints) == {0, 1, 2}
    assert 'viewBox="0 0 96 64"' in svg
    assert 'inkscape:label="Signal red"' in svg
    told = capsys.readouterr().out
    assert re.match(rf"{re.escape(str(out))}: \d+ paths, \d+ nodes, [\d.]+ kB", told)
    assert ("% agreement" in told) == ("vtracer" not in options)
    assert [path.name for path in out.parent.iterdir()] == ["map.svg"]


def test_the_suffix_chooses_the_format(given: tuple[Path, Path], tmp_path: Path) -> None:
    assert trace(given, tmp_path / "map.PDF", "--width-mm", "50") == FINE
    assert (tmp_path / "map.PDF").read_bytes().startswith(b"%PDF-1.")
    assert trace(given, tmp_path / "map.eps", "--width-mm", "25.4") == FINE
    head = (tmp_path / "map.eps").read_bytes()[:400]
    assert head.startswith(b"%!PS-Adobe-3.0 EPSF-3.0")
    assert b"%%BoundingBox: 0 0 72 48" in head
    assert trace(given, tmp_path / "map.dxf") == FINE
    assert (tmp_path / "map.dxf").read_bytes().rstrip().endswith(b"EOF")


def test_lines_leave_no_curve(given: tuple[Path, Path], tmp_path: Path) -> None:
    letters = {}
    for name, options in (("lines", ["--lines"]), ("curves", [])):
        assert trace(given, tmp_path / f"{name}.svg", *options) == FINE
        svg = (tmp_path / f"{name}.svg").read_text("utf-8")
        letters[name] = set("".join(re.findall(r' d="([^"]*)"', svg))) & set("acACsqSQ")
    assert not letters["lines"]
    assert "<circle" not in (tmp_path / "lines.svg").read_text("utf-8")
    assert letters["curves"] or "<circle" in (tmp_path / "curves.svg").read_text("utf-8")


def test_a_single_cut_has_no_ink_and_less_to_cut(given: tuple[Path, Path], tmp_path: Path) -> None:
    assert trace(given, tmp_path / "fills.dxf") == FINE
    assert trace(given, tmp_path / "cut.dxf", "--single-cut") == FINE
    texts = {name: (tmp_path / f"{name}.dxf").read_text() for name in ("fills", "cut")}
    layers = {
        name: {entity.dxf.layer for entity in read_dxf(io.StringIO(text)).modelspace()} for name, text in texts.items()
    }
    assert len(layers["fills"]) == 3
    assert "CUT" in layers["cut"]
    assert not layers["cut"] & layers["fills"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-o", "map.gif"], "map.gif: must end in .svg, .pdf, .eps or .dxf"),
        (["--tolerance", "11"], "SchemaError: output.tolerance_px: must be at most 10.0, not 11.0"),
        (["--tolerance", "nan"], "SchemaError: output.tolerance_px: must be a finite number"),
        (["--stacking", "loose"], "SchemaError: output.stacking"),
        (["--tracer", "potrace"], "SchemaError: output.tracer"),
        (["--tracer", "vtracer", "--stacking", "abutting"], "SchemaError: output.stacking"),
        (["--tracer", "vtracer", "--lines"], "--lines: asks for what vtracer can't do"),
        (["--single-cut"], 'SchemaError: output.single_cut: means nothing without "dxf"'),
        (["--width-mm", "-1"], "SchemaError: output.width_mm"),
    ],
)
def test_unusable_options_are_one_clear_line(
    options: list[str],
    sentence: str,
    given: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert trace(given, tmp_path / "map.svg", *options) == UNUSABLE
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith(f"error: {sentence}")
    assert told.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "p.json: No such file"),
        ("{", "p.json: isn't JSON"),
        ("[" * 100_000, "p.json: isn't JSON"),
        ("[]", "PaletteError: palette: needs 2 to 64 colours"),
        ('["#FFFFFF", "#GG0011"]', 'PaletteError: palette[1]: "#GG0011" is not a hex colour'),
        ("7", "PaletteError: palette: must be a list of colours"),
        ('{"extract": 4}', "p.json: a label map holds no colours to extract"),
    ],
)
def test_an_unusable_palette_is_one_clear_line(
    content: str | None,
    sentence: str,
    given: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    assert trace((given[0], path), tmp_path / "out" / "map.svg") == UNUSABLE
    told = capsys.readouterr().err
    assert told.startswith(f"error: {sentence}")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_no_label_map_fails_by_its_name(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colour, strange, gone = tmp_path / "colour.png", tmp_path / "strange.png", tmp_path / "gone.png"
    Image.new("RGB", (4, 4)).save(colour)
    Image.new("L", (4, 4), 3).save(strange)
    for path, sentence in (
        (colour, "colour.png: ImageUnsupported: a label map is an 8-bit grey PNG"),
        (strange, "strange.png: ImageUnsupported: label 3 is not in the palette"),
        (gone, "gone.png: FetchError: the file can't be read: No such file"),
    ):
        assert trace((path, given[1]), tmp_path / "map.svg") == SOME_FAILED
        told = capsys.readouterr().err
        assert told.startswith(sentence)
        assert told.count("\n") == 1
    assert not (tmp_path / "map.svg").exists()


def test_what_is_read_is_not_written_over(given: tuple[Path, Path], tmp_path: Path) -> None:
    svg = tmp_path / "labels.svg"
    svg.write_bytes(given[0].read_bytes())
    assert trace((svg, given[1]), svg) == UNUSABLE
    assert svg.read_bytes() == given[0].read_bytes()


def test_a_place_that_takes_no_file_fails(
    given: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "map.svg").mkdir()
    assert trace(given, tmp_path / "map.svg") == SOME_FAILED
    assert "UploadFailed" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["map.svg"]


def test_it_runs_as_a_command(given: tuple[Path, Path], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "trace", *map(str, given), "-o", str(tmp_path / "map.svg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == FINE, done.stderr
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "map.svg").is_file()
