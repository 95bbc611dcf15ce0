"""What went wrong elsewhere and had no test yet: the studio engine whole, on the tiny volume, row by row.

Faults are raised inside the networks' own forward passes; what the models are given is read there too.
"""

from __future__ import annotations

import base64
import io
import json
import resource
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import handler
from models import units
from models.loader import Unit
from pipeline.decode import decode_bytes
from pipeline.errors import LiveryError, SchemaError
from pipeline.request import STUDIO_ONLY, parse_request
from pipeline.run import begin, make, run
from pipeline.schema import JobInput
from pipeline.settings import load_settings
from pipeline.worker import Worker
from tests.test_studio import FRAME_PX, PHOTO, STUDIO, illustrate, picture, request_json, settings_of

torch = pytest.importorskip("torch", reason="the studio extra is not installed")

ROOT = Path(__file__).resolve().parent.parent
CANARY = "canary-5d1f"

Serve = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def worker(tiny_volume: Path) -> Worker:
    return Worker(settings_of(tiny_volume))


@pytest.fixture(scope="module")
def serve(tiny_volume: Path) -> Iterator[Serve]:
    """The handler as the platform calls it, with its settings in the environment; one worker for all jobs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIVERY_VOLUME", str(tiny_volume))
        patch.setenv("LIVERY_ALLOW_SYNTHETIC", "true")
        patch.setenv("LIVERY_THREADS", "1")
        patch.setattr("pipeline.run.FRAME_PX", FRAME_PX)
        yield lambda **more: handler.handler(request_json(**more))
        handler.worker_for.cache_clear()


def networks_of(worker: Worker, unit: Any) -> tuple[Any, ...]:
    studio = worker.studio
    assert studio is not None
    networks: tuple[Any, ...] = studio.thread.run(lambda: studio.residents().get(unit)).networks
    return networks


def served(unit: Any) -> tuple[Any, ...]:
    """A unit's networks in the handler's worker, where the segmenter knows no picture yet."""
    worker = handler.worker_for(load_settings())
    studio = worker.studio
    assert studio is not None
    studio.thread.run(lambda: studio.residents().forget(units.SEGMENTER))
    return networks_of(worker, unit)


@contextmanager
def computing(network: Any, act: Callable[[int, Any], Any]) -> Iterator[list[int]]:
    """Calls `act(k, output)` after the k-th forward pass, from 1, of any convolution or linear layer of a network."""
    count = [0]

    def hook(_module: Any, _given: Any, output: Any) -> Any:
        count[0] += 1
        return act(count[0], output)

    with ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                hooks.callback(module.register_forward_hook(hook).remove)
        yield count


@contextmanager
def given_to(network: Any) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What each call of a network is given, in order: positional and named."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = network.register_forward_pre_hook(lambda _, args, named: calls.append((args, named)), with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


NETWORKS = [
    pytest.param(unit, number, id=f"{unit.name}-{number}".replace(" ", "-"))
    for unit, networks in (
        (units.DETECTOR, 1),
        (units.SEGMENTER, 1),
        (units.INPAINTER, 1),
        (units.DEPTH, 1),
        (units.PROMPT, 2),
        (units.VAE, 1),
        (units.FAST, 2),
        (units.FAITHFUL, 3),
        (units.UPSCALER, 1),
    )
    for number in range(networks)
]


def using(unit: Any, prompt: str) -> dict[str, Any]:
    """A request that the unit takes part in; what the prompt encoder has read before, it does not compute again."""
    return {
        "mode": "faithful" if unit is units.FAITHFUL else "fast",
        "style": {**STUDIO["style"], "prompt": f"{unit.name} {prompt}"},
        "output": {"png_widths": [64], "upscale": unit is units.UPSCALER},
    }


class TestFaults:
    """The segmenter failed on every image, and the jobs were complete."""

    def test_every_network_is_in_the_table(self, worker: Worker) -> None:
        every = {name for name, value in vars(units).items() if isinstance(value, Unit)} - {"QUANTISER"}
        values: list[Any] = [param.values for param in NETWORKS]
        listed = {(unit.name, number) for unit, number in values}
        all_ = [getattr(units, name) for name in every]
        assert listed == {(unit.name, k) for unit in all_ for k in range(len(networks_of(worker, unit)))}

    @pytest.mark.parametrize(("unit", "number"), NETWORKS)
    def test_a_fault_in_a_model_s_first_or_last_computation_is_the_job_s(
        self, serve: Serve, unit: Any, number: int
    ) -> None:
        network = served(unit)[number]
        with computing(network, lambda *_: None) as count:
            whole = serve(**using(unit, f"{number} whole"))
        assert whole.get("error") is None, whole
        assert count[0] > 0, "the network took no part"
        for at in (1, count[0]):
            raised: list[int] = []

            def fail(k: int, _: Any, at: int = at, raised: list[int] = raised) -> None:
                if k == at:
                    raised.append(k)
                    raise RuntimeError(f"{CANARY} expected scalar type Half but found Float")

            prompt = f"{number} fault {at}" if unit is units.PROMPT else f"{number} whole"
            with computing(network, fail):
                reply = serve(**using(unit, prompt))
            assert raised == [at], "it was tried again, or never"
            assert (reply["code"], reply["retryable"]) == ("InternalError", False)
            assert "svg" not in reply
            assert CANARY not in json.dumps(reply)
        again = serve(**using(unit, f"{number} whole"))
        assert again["svg"] == whole["svg"]

    @pytest.mark.parametrize(("unit", "number"), NETWORKS)
    def test_what_is_no_number_is_no_picture(self, serve: Serve, unit: Any, number: int) -> None:
        network = served(unit)[number]

        def spoil(_: int, output: Any) -> Any:
            return torch.full_like(output, torch.nan)

        with computing(network, spoil) as count:
            reply = serve(**using(unit, f"{number} no number"))
        assert count[0] > 0
        assert reply.get("code") in {"InternalError", "ModelCorrupt"}, reply.get("report", {}).get("warnings")

    def test_a_failed_job_leaves_nothing_of_its_photo(self, serve: Serve) -> None:
        (segmenter,) = served(units.SEGMENTER)
        with given_to(segmenter.vision_encoder) as calls:
            assert serve().get("error") is None
        (detector,) = served(units.DETECTOR)  # runs after the segmenter has seen the photo

        def fail(_: int, __: Any) -> None:
            raise RuntimeError("a fault")

        with computing(detector, fail):
            assert serve()["code"] == "InternalError"
        with given_to(segmenter.vision_encoder) as again:
            assert serve().get("error") is None
        assert len(again) == len(calls), "the failed job's features served this one, for all that it said cache: off"


class TestWhatTheModelsAreGiven:
    def test_the_segmenter_sees_the_photo_in_rgb_and_the_box_in_its_own_frame(
        self, worker: Worker, tiny_volume: Path
    ) -> None:
        from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil  # noqa: PLC0415

        (network,) = networks_of(worker, units.SEGMENTER)
        with given_to(network.vision_encoder) as pictures, given_to(network.prompt_encoder) as prompts:
            illustrate(worker)
        folder = next(tiny_volume.glob("models/sam-vit-huge/*"))
        photo = decode_bytes(PHOTO, frame_px=FRAME_PX)
        processor: Any = SamImageProcessorPil.from_pretrained(folder)
        seen = processor(images=[photo.rgb], input_data_format="channels_last", return_tensors="pt")
        args, named = pictures[0]
        assert torch.equal((*args, *named.values())[0], seen["pixel_values"])
        side_px = max(seen["reshaped_input_sizes"][0].tolist())
        expected = np.array(STUDIO["subject"]["box"]) * side_px / 144
        pixel = side_px / FRAME_PX
        assert abs(side_px - FRAME_PX) > 8, "the frames are alike, and the test shows nothing"
        first = prompts[0][1]["input_boxes"].reshape(-1, 4)[0].numpy()
        assert np.abs(first - expected).max() <= 1.01 * pixel

    @pytest.mark.parametrize("mode", ["fast", "faithful"])
    def test_depth_fills_its_range_and_edges_are_edges(self, worker: Worker, mode: str) -> None:
        painter = units.FAST if mode == "fast" else units.FAITHFUL
        _, *controls = networks_of(worker, painter)
        with ExitStack() as stack:
            calls = [stack.enter_context(given_to(network)) for network in controls]
            illustrate(worker, mode=mode)
        pictures = [each[0][1]["controlnet_cond"] for each in calls]
        depth, canny = pictures[0] if mode == "fast" else pictures
        grey = 255 * depth.float()
        assert (float(grey.min()), float(grey.max())) == (0, 255)
        assert float(grey.std()) > 10
        assert len(grey.unique()) > 32
        assert (grey - grey.round()).abs().max() < 1e-3
        assert set(canny.unique().tolist()) == {0, 1}
        assert torch.equal(depth[:, :1].expand_as(depth), depth)

    def test_edges_let_go_after_three_quarters_of_the_steps(self, worker: Worker) -> None:
        style = {**STUDIO["style"], "steps": 8}
        unet, depth, canny = networks_of(worker, units.FAITHFUL)
        with given_to(unet) as every, given_to(depth) as shape, given_to(canny) as lines:
            illustrate(worker, mode="faithful", style=style)
        assert (len(every), len(shape), len(lines)) == (8, 8, 6)
        _, union = networks_of(worker, units.FAST)
        with given_to(union) as both:
            illustrate(worker, mode="fast", style={**style, "canny_until": 0.75})
        assert len({float(named["conditioning_scale"][0]) for _, named in both}) == 1
        assert [named["conditioning_scale"][1] > 0 for _, named in both] == [True] * 6 + [False] * 2

    @pytest.mark.parametrize("field", ["box_threshold", "text_threshold"])
    def test_a_higher_threshold_only_ever_takes_less(self, worker: Worker, field: str) -> None:
        def removed(threshold: float) -> list[Any]:
            sanitize = {"max_subject_share": 1, "box_threshold": 0.3, "text_threshold": 0.25, field: threshold}
            return list(illustrate(worker, sanitize=sanitize).report.removed)

        steps = (0.3, 0.9, 0.99, 0.9995, 1)
        found = [removed(threshold) for threshold in steps]
        counts = [len(each) for each in found]
        assert counts == sorted(counts, reverse=True)
        assert len(set(counts)) >= 4
        assert counts[-1] == 0
        assert all(thing.score >= threshold for threshold, each in zip(steps, found, strict=True) for thing in each)

    def test_what_would_take_the_vehicle_away_is_refused(self, worker: Worker) -> None:
        with pytest.raises(SchemaError) as caught:
            illustrate(worker, sanitize={"max_subject_share": 0})
        assert caught.value.field == "sanitize.max_subject_share"


def numbers_from_nought(schema: Mapping[str, Any], at: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every field of a request that may be 0, as a path."""
    for name, field in at["properties"].items():
        kinds = field.get("anyOf", [field])
        if any(kind.get("minimum") == 0 for kind in kinds):
            yield prefix + name
        for kind in kinds:
            group = schema["$defs"].get(kind.get("$ref", "").rpartition("/")[2])
            if group is not None and not prefix:
                yield from numbers_from_nought(schema, group, f"{name}.")


SCHEMA = JobInput.model_json_schema()
NOUGHTS = sorted(numbers_from_nought(SCHEMA, SCHEMA))


class TestNought:
    def test_the_fields_are_found(self) -> None:
        known = {"seed", "detail", "sanitize.box_threshold", "style.guidance_scale", "style.retries", "output.trap_mm"}
        assert known < set(NOUGHTS)
        assert len(NOUGHTS) >= 14

    @pytest.mark.parametrize("path", NOUGHTS)
    def test_0_is_reported_as_0(self, worker: Worker, path: str) -> None:
        group, _, name = path.rpartition(".")
        base: dict[str, Any] = {
            **STUDIO,
            "sanitize": {**STUDIO["sanitize"], "targets": []},
            "output": {"formats": ["separations"], "width_mm": 40, "upscale": False},
        }
        asked = {name: 0} if not group else {group: {**base[group], name: 0}}
        options = illustrate(worker, **{**base, **asked}).report.options
        kept = getattr(getattr(options, group) if group else options, name)
        assert kept == 0
        assert kept is not False


FAITHFUL: dict[str, Any] = {"mode": "faithful"}
FEW: dict[str, Any] = {"sanitize": {"targets": ["plate"], "box_threshold": 0.99, "max_subject_share": 1}}
DRIFTING: dict[str, Any] = {"style": {**STUDIO["style"], "iou_threshold": 1}}

CHANGES: dict[str, tuple[Mapping[str, Any], Any]] = {
    "mode": ({}, "faithful"),
    "detail": ({}, 0),
    "tone": ({}, 0),
    "seed": ({}, 0),
    "sanitize.targets": ({}, ["plate"]),
    "sanitize.box_threshold": ({"sanitize": {**STUDIO["sanitize"], "text_threshold": 0}}, 0),
    "sanitize.text_threshold": ({"sanitize": {**STUDIO["sanitize"], "box_threshold": 0}}, 0),
    "sanitize.max_subject_share": (FEW, 0),
    "style.prompt": ({}, ""),
    "style.negative_prompt": (FAITHFUL, ""),
    "style.steps": ({}, 1),
    "style.guidance_scale": (FAITHFUL, 0),
    "style.guidance_until": (FAITHFUL, 0),
    "style.depth_weight": ({}, 0),
    "style.canny_weight": ({}, 0),
    "style.canny_until": (FAITHFUL, 0),
    "style.lora_scale": ({}, 0),
    "style.iou_threshold": ({}, 0),
    "style.retries": (DRIFTING, 0),
    "style.allow_drift": (DRIFTING, True),
    "output.upscale": ({}, False),
}
"""Every field that the studio engine alone answers to, and every number that may be 0 and is another if it is left out:
what else is asked, and the value that is compared with what the field is where it is left out."""


LESS_SURE = 6
"""What is taken off the detector's logits, so that its scores lie on both sides of the thresholds' defaults."""


def default_of(path: str) -> Any:
    group, _, name = path.rpartition(".")
    return getattr(getattr(JobInput(), group) if group else JobInput(), name)


def with_field(request: Mapping[str, Any], path: str, value: Any = None) -> dict[str, Any]:
    """A request with a field at a value, or without the field."""
    group, _, name = path.rpartition(".")
    inner = dict(request.get(group, {}) if group else request)
    inner.pop(name, None)
    if value is not None:
        inner[name] = value
    return {**request, group: inner} if group else inner


class TestAnswers:
    """Inputs that were declared had no effect, and 0 was taken for the default."""

    def test_every_field_has_a_row(self) -> None:
        others = {path for path in NOUGHTS if default_of(path) not in (0, None)}
        assert set(CHANGES) == set(STUDIO_ONLY) | others
        assert all(CHANGES[path][1] == 0 for path in NOUGHTS if path in CHANGES)

    @pytest.mark.parametrize("path", CHANGES)
    def test_the_field_changes_what_is_made_or_said(self, worker: Worker, path: str) -> None:
        more, value = CHANGES[path]
        request = {**STUDIO, **more}

        def outcome(asked: Mapping[str, Any]) -> object:
            try:
                made = illustrate(worker, **asked)
            except LiveryError as fault:
                return fault.code, fault.field
            beside = {"options", "mode", "seed", "timings_ms", "loads", "cold"}
            return made.drawing.svg, made.report.model_dump(exclude=beside)

        def doubt(_module: Any, _given: Any, output: Any) -> Any:
            output.logits = output.logits - LESS_SURE
            return output

        (detector,) = networks_of(worker, units.DETECTOR)
        handle = detector.register_forward_hook(doubt)
        try:
            left_out, set_ = outcome(with_field(request, path)), outcome(with_field(request, path, value))
        finally:
            handle.remove()
        assert left_out != set_


def big_photo(folder: Path, long_px: int) -> Path:
    path = folder / f"{long_px}.jpg"
    drawn = Image.open(io.BytesIO(picture()))
    drawn.resize((long_px, long_px * 2 // 3), Image.Resampling.BICUBIC).save(path, quality=85)
    return path


def measure(volume: str, *photos: str) -> None:
    """Prints, for each photo in turn, the most memory in MB that this process has taken by then, and what was made."""
    torch.set_num_threads(1)
    worker = Worker(settings_of(Path(volume), deadline_vectorize_s=600))
    request = {**STUDIO, "subject": "whole", "output": {"png_widths": [64]}}
    for photo in photos:
        widest = [0]

        def widen(_: Any, args: tuple[Any, ...], widest: list[int] = widest) -> None:
            if args and isinstance(args[0], torch.Tensor) and args[0].dim() == 4:
                widest[0] = max(widest[0], args[0].shape[-1] * args[0].shape[-2])

        handle = torch.nn.modules.module.register_module_forward_pre_hook(widen)
        result = run(parse_request(request), worker, data=Path(photo).read_bytes())
        handle.remove()
        size = result.report.size
        assert size is not None
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps([peak_mb, widest[0], size.width]))


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory in Linux's units")
def test_memory_does_not_grow_with_the_photo(tiny_volume: Path, tmp_path: Path) -> None:
    photos = [str(big_photo(tmp_path, side)) for side in (256, 1024, 2500, 7000)]
    code = "import sys; from tests.test_studio_regressions import measure; measure(*sys.argv[1:])"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tiny_volume), *photos],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    peaks_mb, widest, widths = zip(*map(json.loads, ran.stdout.splitlines()), strict=True)
    assert peaks_mb == tuple(sorted(peaks_mb)), (peaks_mb, widest, widths)
    assert len(set(widest[1:])) == 1, "a network saw more of a larger photo"
    assert max(widths) - min(widths) < 16, "another size of picture for a larger photo"
    decoded_mb = 7000 * 4667 * 3 / 1e6
    assert peaks_mb[-1] - peaks_mb[1] < 4 * decoded_mb
    assert peaks_mb[-1] < 2500


class TestCompiling:
    """Nothing is compiled by torch yet; where it is one day, it is once for a process and not once for a job."""

    def test_jobs_after_the_first_compile_nothing(self, worker: Worker) -> None:
        from torch._dynamo.utils import counters  # noqa: PLC0415

        def compiled() -> int:
            return int(counters["stats"]["unique_graphs"])

        drifting = {**STUDIO["style"], "iou_threshold": 1, "retries": 2}
        first = illustrate(worker, style=drifting)
        before = compiled()
        for _ in range(2):
            illustrate(worker, style=drifting)
        assert first.report.subject.iou < 1, "nothing was tried again"
        assert compiled() == before
        torch.compile(torch.nn.Linear(2, 2), backend="eager")(torch.zeros(1, 2))
        assert compiled() == before + 1, "the counter does not count"


class Watched:
    """What this process did: files it opened, seconds it slept."""

    def __init__(self) -> None:
        self.on = False
        self.opened: list[str] = []
        self.slept: list[float] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            self.opened.append(str(arguments[0]))
        elif event == "time.sleep":
            self.slept.append(arguments[0])

    @contextmanager
    def watching(self) -> Iterator[Watched]:
        self.opened, self.slept, self.on = [], [], True
        try:
            yield self
        finally:
            self.on = False


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


@contextmanager
def entered(*functions: Callable[..., Any]) -> Iterator[Counter[str]]:
    """How often each of these functions of Python is entered on this thread, by name."""
    names = {function.__code__: function.__name__ for function in functions}
    count: Counter[str] = Counter()

    def see(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code in names:
            count[names[frame.f_code]] += 1

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        yield count
    finally:
        sys.setprofile(before)


class TestNoRetries:
    """Deterministic failures were retried with sleeps. A fault inside a network: `TestFaults`."""

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"palette": ["#000000"]}, "PaletteError"),
            ({"subject": {"box": [0, 0, 9000, 9000], "point": [1, 1]}}, "SchemaError"),
            ({"image": base64.b64encode(PHOTO[:400]).decode()}, "ImageCorrupt"),
        ],
    )
    def test_a_bad_request_is_refused_once_without_any_model(
        self, serve: Serve, tiny_volume: Path, watched: Watched, change: dict[str, Any], code: str
    ) -> None:
        calls: list[Any] = []
        handle = torch.nn.modules.module.register_module_forward_pre_hook(lambda *_: calls.append(0))
        with watched.watching() as did, entered(parse_request, begin) as count:
            reply = serve(**change)
        handle.remove()
        assert (reply["code"], reply["retryable"]) == (code, False)
        assert count == ({"parse_request": 1, "begin": 1} if code == "ImageCorrupt" else {"parse_request": 1})
        assert (calls, did.slept) == ([], [])
        assert not [path for path in did.opened if str(tiny_volume / "models") in path]

    @pytest.mark.parametrize(("fault", "code"), [("gone", "ModelMissing"), ("flipped", "ModelCorrupt")])
    def test_a_model_that_can_t_be_used_is_read_once(
        self,
        tiny_volume: Path,
        tmp_path: Path,
        watched: Watched,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
        code: str,
    ) -> None:
        volume = tmp_path / "volume"
        shutil.copytree(tiny_volume, volume)
        weights = next(volume.glob("models/sam-vit-huge/*/model.safetensors"))
        if fault == "gone":
            weights.unlink()
        else:
            data = bytearray(weights.read_bytes())
            data[-1] ^= 1
            weights.write_bytes(data)
        for name, value in (("VOLUME", str(volume)), ("ALLOW_SYNTHETIC", "true"), ("THREADS", "1")):
            monkeypatch.setenv(f"LIVERY_{name}", value)
        handler.worker_for.cache_clear()
        with watched.watching() as did, entered(parse_request, begin, make) as count:
            reply = handler.handler(request_json())
        handler.worker_for.cache_clear()
        assert (reply["code"], reply["retryable"]) == (code, False)
        assert did.slept == []
        assert set(count.values()) == {1}
        assert did.opened.count(str(weights)) == (0 if fault == "gone" else 1)


def test_jobs_inside_of_each_other_give_what_they_give_alone(worker: Worker) -> None:
    outer = parse_request({**STUDIO, "cache": "use", "seed": 21})
    inner: dict[str, Any] = {
        "cache": "use",
        "mode": "faithful",
        "style": {**STUDIO["style"], "prompt": "a woodcut"},
        "detail": 0,
        "tone": 0,
        "line_work": 1,
        "background": "remove",
        "subject": {"point": [70, 60]},
        "sanitize": {**STUDIO["sanitize"], "targets": ["logo"]},
        "output": {**STUDIO["output"], "tolerance_px": 2},
    }
    alone, other = (
        illustrate(worker, cache="off", seed=21),
        illustrate(worker, picture(90), **{**inner, "cache": "off"}),
    )
    between: list[str] = []

    def job_between(_: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # told of a model's step: the one thread of all torch work is busy with it
        made = illustrate(worker, picture(90), **{**inner, "seed": STUDIO.get("seed", 42)}, palette=INKS_BETWEEN)
        between.append(made.drawing.svg)

    nested = run(outer, worker, data=PHOTO, frame_px=FRAME_PX, progress=job_between)
    assert len(between) >= 5, "one job before each phase of the other"
    assert set(between) == {
        illustrate(worker, picture(90), **{**inner, "cache": "off"}, palette=INKS_BETWEEN).drawing.svg
    }
    assert nested.drawing.svg == alone.drawing.svg
    assert other.drawing.svg != alone.drawing.svg


INKS_BETWEEN = ["#101010", "#FFFFFF", "#00A0E0"]
