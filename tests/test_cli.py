"""The command line as a user meets it: real processes, real files."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.command import SAID_ONCE, main, stems_of
from pipeline.files import write_fault
from pipeline.steps import DOING
from pipeline.terminal import FINE, INTERRUPTED, SOME_FAILED, UNUSABLE, printable_name
from pipeline.types import Phase
from tests.scene import Scene, encode_jpeg

ROOT = Path(__file__).resolve().parent.parent
INKS = "#101010 #808080 #F0F0F0 #C02020"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two good photos of one stem, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    y, x = np.mgrid[0:96, 0:144]
    wheel = (x - 70) ** 2 + (y - 50) ** 2 < 30**2
    rgb = np.stack([np.where(wheel, 190, 40 + x), np.where(wheel, 30, 90 + y // 2), 60 + y], axis=2).astype(np.uint8)
    Image.fromarray(rgb).save(folder / "car.jpg", quality=92)
    Image.fromarray(rgb[:, ::-1]).save(folder / "car.png")
    (folder / "cut.jpg").write_bytes((folder / "car.jpg").read_bytes()[:700])
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipeline", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False)


def lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def batch(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("out")
    return out, run(photos, "--palette", INKS, "--width", "200", "--width", "64", "--json", "-o", out)


def test_a_batch_serves_the_good_photos_and_names_the_bad_one(
    batch: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = batch
    assert done.returncode == SOME_FAILED, done.stderr
    first, second, broken = lines(done)
    assert [first["photo"], second["photo"], broken["photo"]] == ["car.jpg", "car.png", "cut.jpg"]
    assert broken["code"] == "ImageCorrupt"
    assert first["options"]["output"]["png_widths"] == [200, 64]
    # One stem, two photos: neither overwrites the other.
    stems = {path.name.partition(".")[0].removesuffix("-200").removesuffix("-64") for path in out.iterdir()}
    assert stems == {"car-jpg", "car-png"}
    names = {"car-jpg.svg", "car-jpg-200.png", "car-jpg-64.png", "car-jpg.html", "car-jpg.json"}
    assert names <= {path.name for path in out.iterdir()}
    assert json.loads((out / "car-jpg.json").read_text())["output_sha256"] == first["output_sha256"]


def test_resume_skips_what_is_finished_and_redoes_what_is_not(
    photos: Path, batch: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, _ = batch
    svg = out / "car-jpg.svg"
    before = svg.stat().st_mtime_ns
    (out / "car-png.html").unlink()
    options = ("--palette", INKS, "--width", "200", "--width", "64", "--resume", "-o", out)
    again = run(photos / "car.jpg", photos / "car.png", *options)
    assert again.returncode == FINE, again.stderr
    assert "car.jpg: finished before" in again.stdout
    assert "car.png: finished before" not in again.stdout
    assert svg.stat().st_mtime_ns == before
    assert (out / "car-png.html").is_file()
    other = run(photos / "car.jpg", photos / "car.png", *options, "--detail", "0.9")
    assert "finished before" not in other.stdout
    # What speaks of the options and the worker is said once, not once a photo.
    codes = [line.split(":")[0].strip() for line in other.stdout.splitlines() if line.startswith("  ")]
    assert [codes.count(code) for code in sorted(SAID_ONCE & set(codes))] == [1, 1]


def test_resume_takes_no_picture_of_other_options_for_finished(photos: Path, tmp_path: Path) -> None:
    plain = [str(photos / "car.jpg"), "--width", "64", "-o", str(tmp_path)]
    assert main(plain) == FINE
    svg, page = tmp_path / "car.svg", tmp_path / "car.html"
    wanted, kept = svg.read_bytes(), page.read_bytes()
    page.unlink()
    page.mkdir()
    assert main([*plain, "--palette", INKS]) == SOME_FAILED
    assert svg.read_bytes() != wanted
    page.rmdir()
    page.write_bytes(kept)
    assert main([*plain, "--resume"]) == FINE
    assert svg.read_bytes() == wanted


def test_resume_does_again_what_another_livery_made(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = [str(photos / "car.jpg"), "--width", "64", "-o", str(tmp_path), "--resume"]
    assert main(plain) == main(plain) == FINE
    assert "finished before" in capsys.readouterr().out
    report = json.loads((tmp_path / "car.json").read_text())
    (tmp_path / "car.json").write_text(json.dumps(report | {"version": "0.0.0"}))
    assert main(plain) == FINE
    assert "finished before" not in capsys.readouterr().out


def test_every_format_has_its_file(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inks = f"{INKS} #00FF00"
    given = [str(photos / "car.jpg"), "--palette", inks, "--width", "64", "--json", "-o", str(tmp_path)]
    formats = [word for name in ("svg", "png", "pdf", "dxf", "separations") for word in ("--format", name)]
    stale = tmp_path / "car-00ff00.pdf"
    stale.write_text("an earlier drawing's")
    assert main([*given, *formats, "--width-mm", "120", "--resume"]) == FINE
    first = json.loads(capsys.readouterr().out)
    files = first["files"]
    used = [ink["hex"][1:].lower() for ink in first["palette"] if ink["paths"]]
    assert files["separations"] == [str(tmp_path / f"car-{word}.pdf") for word in used]
    assert files["pdf"] == str(tmp_path / "car.pdf")
    assert "00ff00" not in used
    assert not stale.exists()
    for path in (files["pdf"], *files["separations"]):
        assert Path(path).read_bytes().startswith(b"%PDF-1.")
    assert Path(files["dxf"]).read_bytes().rstrip().endswith(b"EOF")
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert main([*given, *formats, "--width-mm", "120", "--resume"]) == FINE
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made


def test_a_preset_is_expanded_and_repeated(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "plotter", "--width-mm", "80", "--json", "-o", str(tmp_path)]
    assert main([str(photos / "car.jpg"), *arguments]) == FINE
    output = json.loads(capsys.readouterr().out)["options"]["output"]
    assert (output["preset"], output["formats"], output["width_mm"]) == ("plotter", ["dxf", "svg"], 80)
    assert output["single_cut"] is True


def test_no_photo_s_files_write_over_another_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["car.jpg", "car-101010.jpg", "--palette", INKS, "--format", "pdf", "--format", "separations"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == UNUSABLE
    assert "car-101010.pdf: two photos would write it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["ascii", "utf-8:strict"])
def test_no_encoding_of_the_terminal_stops_a_batch(encoding: str, photos: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9\n.jpg")
    odd.write_bytes((photos / "car.jpg").read_bytes())
    done = subprocess.run(
        command(odd, "--width", "64", "-o", tmp_path / "out"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert done.returncode == FINE, done.stderr
    assert f"  {tmp_path / 'out'}/caf\\udce9\\n.svg\n" in done.stdout


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path) -> None:
    assert main([str(photos / "car.jpg"), "--dry-run", "--json", "-o", str(tmp_path / "out")]) == FINE
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--palette", "#GG0011 #FFFFFF"], "PaletteError: palette[0]"),
        (["--palette", "no-such-file.gpl"], "PaletteError: no-such-file.gpl: can't be read"),
        (["--palette", "extract:many"], "PaletteError: palette"),
        (["--palette", "https://example.com/0b0d10-c8262b"], "PaletteError: palette"),
        (["--detail", "1.5"], "SchemaError: detail"),
        (["--subject", "1,2,3"], "SchemaError: subject"),
        (["--remove", "1,2"], "SchemaError: sanitize.regions[0]"),
        (["--engine", "stdio"], "SchemaError: engine"),
        (["--background", "#123456"], "SchemaError: background"),
        (["--width", "9000"], "SchemaError: output.png_widths[0]"),
        (["--format", "gif"], "SchemaError: output.formats[0]"),
        (["--preset", "poster"], "SchemaError: output.preset"),
        (["--trap-mm", "1"], "SchemaError: output.trap_mm"),
        (["--min-feature-mm", "1"], "SchemaError: output.min_feature_mm"),
        (["--registration-marks"], "SchemaError: output.registration_marks"),
        (["--tolerance", "50"], "SchemaError: output.tolerance_px"),
    ],
)
def test_unusable_options_are_one_clear_line(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["photo.jpg", "-o", str(tmp_path), *arguments]) == UNUSABLE
    told = capsys.readouterr()
    assert not told.out
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_options_reach_the_request(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--palette", "extract:3", "--detail", "0.2", "--tone", "0", "--line-work", "0.7", "--seed", "7"]
    arguments += ["--subject", "20,10,120,90", "--remove", "1,1,9,9", "--protect", "5,5,20,20", "--json"]
    assert main([str(photos / "car.jpg"), "--width", "64", "-o", str(tmp_path), *arguments]) == FINE
    options = json.loads(capsys.readouterr().out)["options"]
    assert options["palette"] == {"extract": 3}
    assert (options["detail"], options["tone"], options["line_work"], options["seed"]) == (0.2, 0.0, 0.7, 7)
    assert options["subject"] == {"box": [20.0, 10.0, 120.0, 90.0]}
    assert options["sanitize"]["regions"] == [[1.0, 1.0, 9.0, 9.0]]
    assert options["sanitize"]["protect"] == [[5.0, 5.0, 20.0, 20.0]]


def test_a_palette_file_keeps_its_names(photos: Path, tmp_path: Path) -> None:
    gpl = tmp_path / "brand.gpl"
    gpl.write_text("GIMP Palette\nName: Brand\n#\n16 16 16 Night\n240 240 240 Snow\n192 32 32 Signal & stop\n")
    assert main([str(photos / "car.jpg"), "--palette", str(gpl), "--width", "64", "-o", str(tmp_path)]) == FINE
    assert 'data-ink="Signal &amp; stop"' in (tmp_path / "car.svg").read_text()


def test_a_missing_photo_is_a_failure_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "gone.jpg"), "-o", str(tmp_path / "out")]) == SOME_FAILED
    assert "gone.jpg: FetchError: the file can't be read" in capsys.readouterr().err


def test_a_terminal_sees_the_phases_and_a_pipe_only_json(photos: Path, tmp_path: Path) -> None:
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (40, 120))
    arguments = command(photos / "car.jpg", "--width", "64", "--json", "-o", tmp_path)
    done = subprocess.run(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=terminal, text=True, check=True)
    os.set_blocking(screen, False)
    seen = b""
    with suppress(BlockingIOError):
        while True:
            seen += os.read(screen, 4096)
    os.close(terminal)
    os.close(screen)
    assert [line["photo"] for line in lines(done)] == ["car.jpg"]
    phases: tuple[Phase, ...] = ("decode", "sanitize", "steer", "enforce", "vectorize", "export")
    for phase in phases:
        assert f"car.jpg: {DOING[phase]}".encode() in seen


def test_nothing_that_is_read_is_written_over(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    car, png = tmp_path / "car.jpg", tmp_path / "car-64.png"
    palette, job = tmp_path / "car.json", tmp_path / "job.json"
    car.write_bytes((photos / "car.jpg").read_bytes())
    png.write_bytes((photos / "car.png").read_bytes())
    palette.write_text('["#101010", "#F0F0F0"]')
    job.write_text(json.dumps({"input": {"image": base64.b64encode(png.read_bytes()).decode()}}))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments in (
        [str(car), str(png), "--width", "64", "-o", str(tmp_path)],
        [str(car), "--palette", str(palette), "-o", str(tmp_path)],
        ["demo", str(job), "-o", str(tmp_path)],
    ):
        assert main(arguments) == UNUSABLE
        assert "would be overwritten" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_without_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    assert main([str(tmp_path), "-o", str(tmp_path / "out")]) == UNUSABLE
    assert "holds no .jpg" in capsys.readouterr().err


def test_names_never_collide() -> None:
    given = [Path(name) for name in ("a/car.jpg", "b/CAR.jpg", "car.png", "car-png.webp", "c/car.png", "van.jpg")]
    stems = stems_of(given)
    assert stems == ["car-jpg", "CAR-jpg-2", "car-png-2", "car-png", "car-png-3", "van"]
    assert len({stem.casefold() for stem in stems}) == len(given)


def test_a_name_is_one_line_whatever_it_holds() -> None:
    assert printable_name(Path("two\nlines \x1b[31m.jpg")) == "two\\nlines \\x1b[31m.jpg"
    assert printable_name(Path(os.fsdecode(b"caf\xe9.jpg"))) == "caf\\udce9.jpg"


def test_a_file_that_can_t_be_written_leaves_no_part_of_itself(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "car.html").mkdir()
    assert main([str(photos / "car.jpg"), "--width", "64", "--json", "-o", str(tmp_path)]) == SOME_FAILED
    assert json.loads(capsys.readouterr().out)["code"] == "UploadFailed"
    assert {path.name for path in tmp_path.iterdir()} == {"car.svg", "car-64.png", "car.html"}


def test_only_a_full_disk_is_called_full() -> None:
    codes = {name: write_fault(OSError(getattr(errno, name), "why")).code for name in ("ENOSPC", "EDQUOT", "EACCES")}
    assert codes == {"ENOSPC": "VolumeFull", "EDQUOT": "VolumeFull", "EACCES": "UploadFailed"}


def test_the_schema_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["schema", "--write"]) == FINE
    assert Path("schema.json").read_bytes() == (ROOT / "schema.json").read_bytes()
    Path("schema.json").unlink()
    Path("schema.json").mkdir()
    assert main(["schema", "--write"]) == UNUSABLE
    assert capsys.readouterr().err.startswith("error: schema.json: ")
    assert [path.name for path in tmp_path.iterdir()] == ["schema.json"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "No such file"),
        ("{", "isn't JSON"),
        ("[]", 'must be an object with "input"'),
        ('{"input": {"action": "ping"}}', 'asks for action "ping"'),
        ('{"input": {"detial": 1}}', "SchemaError: detial"),
    ],
)
def test_an_unusable_request_file_is_one_clear_line(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.json"
    if content is not None:
        job.write_text(content)
    assert main(["demo", str(job), "-o", str(tmp_path / "out")]) == UNUSABLE
    told = capsys.readouterr().err
    assert told.startswith("error: job.json: ")
    assert sentence in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("delay_s", [0.3, 1.6, 2.2])
def test_ctrl_c_stops_and_leaves_no_half_file(scene: Scene, tmp_path: Path, delay_s: float) -> None:
    out = tmp_path / "out"
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(encode_jpeg(scene, 80) + bytes([i]))
    process = subprocess.Popen(
        command(*sorted(tmp_path.glob("*.jpg")), "-o", out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    time.sleep(delay_s)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)
    # While modules are being imported, Python may end itself by the signal; a shell shows 130 for both.
    assert process.returncode in {INTERRUPTED, -signal.SIGINT}, told
    assert b"Traceback" not in told
    written = sorted(path.name for path in out.iterdir()) if out.exists() else []
    assert not [name for name in written if name.endswith(".part")]
    for report in out.glob("*.json"):
        assert {f"{report.stem}.svg", f"{report.stem}-2048.png", f"{report.stem}.html"} <= set(written)
        json.loads(report.read_text())


def test_demo_ends_with_the_files_it_made(photos: Path, tmp_path: Path) -> None:
    request = tmp_path / "job.json"
    image = (photos / "car.png").read_bytes()
    request.write_text(json.dumps({"input": {"image": base64.b64encode(image).decode(), "palette": INKS}}))
    done = run("demo", request, "-o", tmp_path / "made")
    assert done.returncode == FINE, done.stderr
    kinds = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[-3:])
    assert set(kinds) == {"SVG", "PNG", "PAGE"}
    assert all(Path(path).is_file() for path in kinds.values())


def test_schema_and_errors_are_printed() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    printed = subprocess.run(command("schema"), cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    assert printed.stdout == (ROOT / "schema.json").read_text("utf-8")
    assert "| `PaletteError` | no |" in run("errors").stdout
