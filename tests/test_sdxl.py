"""The painters against diffusers' own pipelines on the same weights, and what they leave out of the work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from builder.synthetic import sdxl as synthetic
from models.denoise import first_noise, is_active
from models.device import CPU
from models.files import ModelFiles
from models.lora import read_lora
from models.registry import row_named
from models.requests import PaintRequest
from pipeline.errors import Cancelled, InternalError, ModelCorrupt, ModelMissing
from pipeline.types import U8

torch: Any = pytest.importorskip("torch", reason="the studio extra is not installed")
diffusers: Any = pytest.importorskip("diffusers")
transformers: Any = pytest.importorskip("transformers")
safetensors: Any = pytest.importorskip("safetensors.torch")

from models.prompt import PromptEncoder, load_prompt_encoder  # noqa: E402
from models.sdxl import (  # noqa: E402
    FaithfulPainter,
    FastPainter,
    load_fast_painter,
    load_style,
)
from models.vae import Vae, load_vae  # noqa: E402
from tests.painters import (  # noqa: E402
    NEGATIVE,
    PROMPT,
    REVISION,
    ROWS,
    Spy,
    conditions,
    files,
    load_faithful,
    load_fast,
    paint,
    request,
    unchecked,
    write_volume,
)

SIZES = [(128, 192), (192, 128), (128, 128)]
LATENT_TOLERANCE = 1e-4
"""float32 on a CPU; our prompts are encoded one by one and the latents scaled before they are doubled."""


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volume(tmp_path_factory.mktemp("volume"))


@pytest.fixture(scope="module")
def encoder(volume: Path) -> PromptEncoder:
    return load_prompt_encoder(files(volume, "sdxl-base"), CPU)


@pytest.fixture(scope="module")
def vae(volume: Path) -> Vae:
    return load_vae(files(volume, "sdxl-vae-fp16-fix"), files(volume, "sdxl-base"), CPU)


@pytest.fixture(scope="module")
def faithful(volume: Path) -> FaithfulPainter:
    return load_faithful(volume)


@pytest.fixture(scope="module")
def styled(volume: Path) -> FaithfulPainter:
    return load_faithful(volume, styled=True)


@pytest.fixture(scope="module")
def fast(volume: Path) -> FastPainter:
    return load_fast(volume)


def reference_parts(volume: Path) -> dict[str, Any]:
    """Loaded by the libraries, from the published layout."""
    base = volume / "sdxl-base"
    fp16: dict[str, Any] = {"variant": "fp16", "torch_dtype": torch.float32}
    return {
        "vae": diffusers.AutoencoderKL.from_pretrained(volume / "sdxl-vae-fp16-fix"),
        "text_encoder": transformers.CLIPTextModel.from_pretrained(
            base / "text_encoder", variant="fp16", dtype=torch.float32
        ),
        "text_encoder_2": transformers.CLIPTextModelWithProjection.from_pretrained(
            base / "text_encoder_2", variant="fp16", dtype=torch.float32
        ),
        "tokenizer": transformers.CLIPTokenizer.from_pretrained(base / "tokenizer"),
        "tokenizer_2": transformers.CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        "unet": diffusers.UNet2DConditionModel.from_pretrained(base / "unet", **fp16),
        "add_watermarker": False,
    }


@pytest.fixture(scope="module")
def faithful_reference(volume: Path) -> Any:
    nets = [
        diffusers.ControlNetModel.from_pretrained(
            volume / f"controlnet-{kind}-sdxl", variant="fp16", torch_dtype=torch.float32
        )
        for kind in ("depth", "canny")
    ]
    published = diffusers.EulerDiscreteScheduler.from_pretrained(volume / "sdxl-base" / "scheduler")
    pipe = diffusers.StableDiffusionXLControlNetPipeline(
        **reference_parts(volume),
        controlnet=diffusers.MultiControlNetModel(nets),
        scheduler=diffusers.UniPCMultistepScheduler.from_config(published.config),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def fast_reference(volume: Path) -> Any:
    union = diffusers.ControlNetUnionModel.from_config(
        diffusers.ControlNetUnionModel._dict_from_json_file(union_config(volume))
    )
    union.load_state_dict(
        safetensors.load_file(volume / "controlnet-union-promax" / "diffusion_pytorch_model_promax.safetensors")
    )
    published = diffusers.EulerDiscreteScheduler.from_pretrained(volume / "sdxl-base" / "scheduler")
    pipe = diffusers.StableDiffusionXLControlNetUnionPipeline(
        **reference_parts(volume),
        controlnet=union.eval(),
        scheduler=diffusers.EulerDiscreteScheduler.from_config(published.config, timestep_spacing="trailing"),
    )
    pipe.load_lora_weights(volume / "sdxl-lightning-4step", weight_name="sdxl_lightning_4step_lora.safetensors")
    pipe.fuse_lora()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def union_config(volume: Path) -> Path:
    return volume / "controlnet-union-promax" / "config_promax.json"


def picture_of(grey: U8) -> Any:
    return Image.fromarray(grey).convert("RGB")


def reference_call(pipe: Any, asked: PaintRequest, *, output: str, **more: Any) -> Any:
    """The library's own call of the same request."""
    pictures = [picture_of(asked.depth), picture_of(asked.canny)]
    union = "Union" in type(pipe).__name__
    shaped = {"control_image": pictures, "control_mode": [1, 3]} if union else {"image": pictures}
    height_px, width_px = asked.depth.shape
    return pipe(
        prompt=asked.prompt,
        negative_prompt=asked.negative_prompt,
        num_inference_steps=asked.steps,
        guidance_scale=asked.guidance_scale,
        controlnet_conditioning_scale=[asked.depth_weight, asked.canny_weight],
        control_guidance_end=[1.0, asked.canny_until],
        generator=torch.Generator("cpu").manual_seed(asked.seed),
        height=height_px,
        width=width_px,
        output_type=output,
        **shaped,
        **more,
    ).images


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_faithful_equals_diffusers(
    faithful: FaithfulPainter, encoder: PromptEncoder, faithful_reference: Any, height_px: int, width_px: int
) -> None:
    asked = request("faithful", height_px, width_px)
    ours = paint(faithful, encoder, asked)
    theirs = reference_call(faithful_reference, asked, output="latent")
    assert ours.shape == (1, 4, height_px // 8, width_px // 8)
    assert float(theirs.std()) > 0.1
    assert float((ours - theirs).abs().max()) < LATENT_TOLERANCE


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_fast_equals_diffusers(
    fast: FastPainter, encoder: PromptEncoder, fast_reference: Any, height_px: int, width_px: int
) -> None:
    asked = request("fast", height_px, width_px)
    ours = paint(fast, encoder, asked)
    theirs = reference_call(fast_reference, asked, output="latent")
    assert float(theirs.std()) > 0.1
    assert float((ours - theirs).abs().max()) < LATENT_TOLERANCE


def test_fast_with_what_a_caller_may_change_equals_diffusers(
    fast: FastPainter, encoder: PromptEncoder, fast_reference: Any
) -> None:
    asked = request("fast", steps=5, guidance_scale=2.0, canny_until=0.5, depth_weight=0.9, seed=7)
    ours = paint(fast, encoder, asked)
    theirs = reference_call(fast_reference, asked, output="latent")
    assert float((ours - theirs).abs().max()) < LATENT_TOLERANCE


@pytest.mark.parametrize(("until", "guided"), [(0.75, 6), (0.5, 4), (0.0, 0)])
def test_a_cut_off_guidance_equals_diffusers_with_its_prompts_cut(
    faithful: FaithfulPainter, encoder: PromptEncoder, faithful_reference: Any, until: float, guided: int
) -> None:
    asked = request("faithful", steps=8, guidance_until=until, canny_until=1.0)
    tensors = ["prompt_embeds", "add_text_embeds", "add_time_ids", "image"]

    def cut(pipe: Any, index: int, _timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
        if index != guided - 1:
            return given
        pipe._guidance_scale = 0.0
        pictures = [one[-1:] for one in given["image"]]
        return {**{name: given[name][-1:] for name in tensors[:-1]}, "image": pictures}

    unet, depth, canny = faithful.networks
    with Spy(unet) as every, Spy(depth) as shape, Spy(canny) as lines:
        ours = paint(faithful, encoder, asked)
    assert every.batches == shape.batches == lines.batches == [2] * guided + [1] * (8 - guided)
    whole = replace(asked, guidance_scale=0.0) if guided == 0 else asked
    theirs = reference_call(
        faithful_reference, whole, output="latent", callback_on_step_end=cut, callback_on_step_end_tensor_inputs=tensors
    )
    assert float((ours - theirs).abs().max()) < LATENT_TOLERANCE
    assert float((ours - paint(faithful, encoder, replace(asked, guidance_until=1.0))).abs().max()) > LATENT_TOLERANCE


def test_the_picture_equals_diffusers_to_one_step_of_255(
    faithful: FaithfulPainter, encoder: PromptEncoder, vae: Vae, faithful_reference: Any
) -> None:
    asked = request("faithful", 128, 192)
    ours = vae.decode(paint(faithful, encoder, asked))
    theirs = np.asarray(reference_call(faithful_reference, asked, output="pil")[0])
    assert ours.dtype == np.uint8
    assert ours.shape == (128, 192, 3)
    assert ours.std() > 1
    assert int(np.abs(ours.astype(int) - theirs).max()) <= 1


def test_a_fused_style_equals_diffusers(
    volume: Path, encoder: PromptEncoder, styled: FaithfulPainter, faithful_reference: Any
) -> None:
    asked = request("faithful", lora_scale=0.8)
    words = load_prompt_encoder(files(volume, "sdxl-base"), CPU, load_style(files(volume, "style-lora")))
    wanted, unwanted = (words.encode(text, asked.lora_scale) for text in (PROMPT, NEGATIVE))
    ours = styled.paint(asked, wanted, unwanted, unchecked)
    faithful_reference.load_lora_weights(volume / "style-lora", weight_name="pytorch_lora_weights.safetensors")
    try:
        faithful_reference.fuse_lora(lora_scale=asked.lora_scale)
        theirs = reference_call(faithful_reference, asked, output="latent")
    finally:
        faithful_reference.unfuse_lora()
        faithful_reference.unload_lora_weights()
    assert float((ours - theirs).abs().max()) < LATENT_TOLERANCE
    assert not torch.equal(wanted.states, encoder.encode(PROMPT).states)


def test_a_style_s_scale_leaves_no_trace(
    styled: FaithfulPainter, encoder: PromptEncoder, faithful: FaithfulPainter
) -> None:
    once = paint(styled, encoder, request("faithful", lora_scale=0.8))
    assert not torch.equal(once, paint(styled, encoder, request("faithful", lora_scale=1.7)))
    assert torch.equal(once, paint(styled, encoder, request("faithful", lora_scale=0.8)))
    bare = paint(styled, encoder, request("faithful", lora_scale=0.0))
    assert torch.equal(bare, paint(faithful, encoder, request("faithful", lora_scale=0.8)))


def test_a_style_joins_the_few_step_adapter(volume: Path, encoder: PromptEncoder, fast: FastPainter) -> None:
    both = load_fast(volume, styled=True)
    plain = paint(fast, encoder, request("fast"))
    assert torch.equal(plain, paint(both, encoder, request("fast", lora_scale=0.0)))
    assert not torch.equal(plain, paint(both, encoder, request("fast", lora_scale=1.0)))


@pytest.mark.parametrize(("steps", "until", "computed"), [(8, 0.75, 6), (5, 0.75, 3), (4, 0.0, 0), (4, 1.0, 4)])
def test_canny_is_not_computed_after_its_share_of_the_steps(
    faithful: FaithfulPainter, encoder: PromptEncoder, steps: int, until: float, computed: int
) -> None:
    unet, depth, canny = faithful.networks
    with Spy(unet) as every, Spy(depth) as shape, Spy(canny) as lines:
        paint(faithful, encoder, request("faithful", steps=steps, canny_until=until))
    assert every.batches == shape.batches == [2] * steps
    assert lines.batches == [2] * computed


def test_a_weight_of_zero_is_not_computed(faithful: FaithfulPainter, encoder: PromptEncoder) -> None:
    _, depth, canny = faithful.networks
    with Spy(depth) as shape, Spy(canny) as lines:
        paint(faithful, encoder, request("faithful", depth_weight=0.0))
        assert (shape.batches, lines.batches) == ([], [2] * 3)
        paint(faithful, encoder, request("faithful", depth_weight=0.0, canny_weight=0.0))
        assert (shape.batches, lines.batches) == ([], [2] * 3)


def test_the_fast_path_is_four_calls_of_one_picture(fast: FastPainter, encoder: PromptEncoder) -> None:
    unet, union = fast.networks
    with Spy(unet) as every, Spy(union) as conditions_:
        paint(fast, encoder, request("fast"))
    assert every.batches == conditions_.batches == [1] * 4


def test_steps_are_counted_as_diffusers_does() -> None:
    for of in range(1, 101):
        for until in (0.0, 0.1, 0.5, 0.75, 1.0):
            for index in range(of):
                keeps = 1.0 - float(index / of < 0.0 or (index + 1) / of > until)
                assert is_active(index, of, until) == (keeps == 1.0)


@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_a_cancelled_job_stops_before_the_next_network(
    fast: FastPainter, faithful: FaithfulPainter, encoder: PromptEncoder, mode: str
) -> None:
    painter = fast if mode == "fast" else faithful
    asked = request(mode)
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    paint(painter, encoder, asked, count)
    whole = calls
    assert whole >= asked.steps * len(painter.networks) - 2
    for allowed in range(0, whole, 3):
        calls = 0

        def stop(allowed: int = allowed) -> None:
            nonlocal calls
            calls += 1
            if calls > allowed:
                raise Cancelled("the job was cancelled")

        spies = [Spy(network) for network in painter.networks]
        with pytest.raises(Cancelled):
            paint(painter, encoder, asked, stop)
        assert sum(len(spy.batches) for spy in spies) <= allowed
        for spy in spies:
            spy.__exit__()


def test_the_seed_decides_and_zero_is_one(fast: FastPainter, encoder: PromptEncoder) -> None:
    zero, one = (paint(fast, encoder, request("fast", seed=seed)) for seed in (0, 1))
    assert torch.equal(zero, paint(fast, encoder, request("fast", seed=0)))
    assert not torch.equal(zero, one)
    assert first_noise(128, 192, 2**53 - 1).shape == (1, 4, 16, 24)


@pytest.mark.parametrize("changed", ["depth", "canny", "depth_weight", "canny_weight", "prompt", "steps"])
@pytest.mark.parametrize("mode", ["fast", "faithful"])
def test_every_input_changes_the_picture(
    fast: FastPainter, faithful: FaithfulPainter, encoder: PromptEncoder, mode: str, changed: str
) -> None:
    painter = fast if mode == "fast" else faithful
    other: dict[str, Any] = {
        "depth": conditions(128, 128)[0][::-1].copy(),
        "canny": np.eye(128, dtype=np.uint8) * np.uint8(255),
        "depth_weight": 0.3,
        "canny_weight": 0.8,
        "prompt": "a red bus",
        "steps": 3,
    }
    plain = paint(painter, encoder, request(mode))
    assert not torch.equal(plain, paint(painter, encoder, request(mode, **{changed: other[changed]})))


def test_the_negative_prompt_and_the_guidance_count_where_there_is_guidance(
    fast: FastPainter, faithful: FaithfulPainter, encoder: PromptEncoder
) -> None:
    plain = paint(faithful, encoder, request("faithful"))
    assert not torch.equal(plain, paint(faithful, encoder, request("faithful", negative_prompt="")))
    assert not torch.equal(plain, paint(faithful, encoder, request("faithful", guidance_scale=3.0)))
    unguided = paint(fast, encoder, request("fast"))
    assert torch.equal(unguided, paint(fast, encoder, request("fast", negative_prompt="")))
    with pytest.raises(ValueError, match="negative prompt"):
        faithful.paint(request("faithful"), encoder.encode(PROMPT), None, unchecked)


def test_a_prompt_is_encoded_once(volume: Path) -> None:
    encoder = load_prompt_encoder(files(volume, "sdxl-base"), CPU)
    with Spy(encoder.networks[0]) as first, Spy(encoder.networks[1]) as second:
        words = encoder.encode(PROMPT)
        assert encoder.encode(PROMPT) is words
        encoder.encode(NEGATIVE)
        encoder.encode(PROMPT)
    assert len(first.batches) == len(second.batches) == 2
    assert words.states.shape == (1, 77, 64)


def test_what_the_encoders_do_not_read_is_named(encoder: PromptEncoder) -> None:
    assert encoder.unread("a" * 75) == ""
    assert encoder.unread("b" * 75 + "cde") == "cde"


def test_a_picture_without_numbers_is_a_defect(vae: Vae) -> None:
    latents = torch.zeros(1, 4, 16, 16)
    latents[0, 0, 3, 3] = torch.nan
    with pytest.raises(InternalError):
        vae.decode(latents)


def test_tiles_cover_the_same_picture(vae: Vae) -> None:
    assert vae.native_px == 256
    latents = torch.randn(1, 4, 32, 48, generator=torch.Generator().manual_seed(0))
    whole, tiled = vae.decode(latents), vae.decode(latents, tiled=True)
    assert whole.shape == tiled.shape == (256, 384, 3)
    assert np.abs(whole.astype(int) - tiled).mean() < 8
    assert np.array_equal(whole, vae.decode(latents))


def damaged(volume: Path, folder: Path, row: str, name: str, change: Callable[[dict[str, Any]], None]) -> ModelFiles:
    """The row's files with another weight file in place of one of them."""
    shutil.copytree(volume / row, folder / row)
    tensors = safetensors.load_file(folder / row / name)
    change(tensors)
    safetensors.save_file(tensors, folder / row / name)
    return ModelFiles(row, REVISION, folder / row)


def lose(tensors: dict[str, Any]) -> None:
    del tensors[sorted(tensors)[-1]]


def add(tensors: dict[str, Any]) -> None:
    tensors["extra.weight"] = torch.zeros(3)


def cut(tensors: dict[str, Any]) -> None:
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name] = tensors[name][:-1].clone()


@pytest.mark.parametrize("change", [lose, add, cut])
@pytest.mark.parametrize(
    ("row", "name", "load"),
    [
        ("sdxl-base", "text_encoder/model.fp16.safetensors", lambda f, v: load_prompt_encoder(f, CPU)),
        (
            "sdxl-vae-fp16-fix",
            "diffusion_pytorch_model.safetensors",
            lambda f, v: load_vae(f, files(v, "sdxl-base"), CPU),
        ),
        (
            "controlnet-union-promax",
            "diffusion_pytorch_model_promax.safetensors",
            lambda f, v: load_fast_painter(files(v, "sdxl-base"), f, files(v, "sdxl-lightning-4step"), CPU),
        ),
        (
            "sdxl-lightning-4step",
            "sdxl_lightning_4step_lora.safetensors",
            lambda f, v: load_fast_painter(files(v, "sdxl-base"), files(v, "controlnet-union-promax"), f, CPU),
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    volume: Path,
    tmp_path: Path,
    row: str,
    name: str,
    load: Callable[[ModelFiles, Path], Any],
    change: Callable[[dict[str, Any]], None],
) -> None:
    broken = damaged(volume, tmp_path, row, name, change)
    with pytest.raises(ModelCorrupt, match=row) as caught:
        load(broken, volume)
    assert str(tmp_path) not in str(caught.value)


def as_original(name: str) -> str:
    """Kohya's name of a layer, with the blocks numbered as in the original code of SDXL (written out by hand)."""
    table = {
        "down_blocks_1_attentions_0": "input_blocks_4_1",
        "down_blocks_1_attentions_1": "input_blocks_5_1",
        "down_blocks_2_attentions_0": "input_blocks_7_1",
        "down_blocks_2_attentions_1": "input_blocks_8_1",
        "down_blocks_0_resnets_1": "input_blocks_2_0",
        "down_blocks_0_downsamplers_0_conv": "input_blocks_3_0_op",
        "mid_block_attentions_0": "middle_block_1",
        "mid_block_resnets_1": "middle_block_2",
        "up_blocks_0_attentions_2": "output_blocks_2_1",
        "up_blocks_1_attentions_0": "output_blocks_3_1",
        "up_blocks_2_resnets_1": "output_blocks_7_0",
    }
    inner = {
        "_conv1.": "_in_layers_2.",
        "_conv2.": "_out_layers_3.",
        "_time_emb_proj.": "_emb_layers_1.",
        "_conv_shortcut.": "_skip_connection.",
    }
    for ours, theirs in table.items():
        if name.startswith(f"lora_unet_{ours}"):
            renamed = name.replace(ours, theirs)
            for old, new in inner.items() if "resnets" in ours else ():
                renamed = renamed.replace(old, new)
            return renamed
    return ""


def test_adapters_are_read_in_every_published_layout(volume: Path, tmp_path: Path, fast: FastPainter) -> None:
    unet = fast.networks[0]
    name = "sdxl_lightning_4step_lora.safetensors"
    plain = read_lora(files(volume, "sdxl-lightning-4step"), name).for_network("unet", unet)

    def layout(kind: str, rename: Callable[[str], str]) -> dict[str, Any]:
        def change(tensors: dict[str, Any]) -> None:
            for key in list(tensors):
                tensor = tensors.pop(key)
                if new := rename(key):
                    tensors[new] = tensor

        row = damaged(volume, tmp_path / kind, "sdxl-lightning-4step", name, change)
        return read_lora(row, name).for_network("unet", unet)

    original = layout("original", as_original)
    assert len(original) > 50
    assert all(torch.equal(pair.up, plain[path].up) for path, pair in original.items())

    paths = {path.replace(".", "_"): path for path in plain}

    def as_peft(key: str) -> str:
        stem, _, kind = key.removeprefix("lora_unet_").partition(".")
        parts = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
        return f"unet.{paths[stem]}.{parts.get(kind, kind)}"

    peft = layout("peft", as_peft)
    assert peft.keys() == plain.keys()
    assert {pair.gain for pair in peft.values()} == {0.5}
    older = layout("older", lambda key: as_peft(key).replace("lora_A", "lora.down").replace("lora_B", "lora.up"))
    assert older.keys() == plain.keys()


def test_another_kind_of_adapter_is_refused(volume: Path, tmp_path: Path) -> None:
    def lokr(tensors: dict[str, Any]) -> None:
        tensors["lora_unet_mid_block_attentions_0_proj_in.lokr_w1"] = torch.zeros(2, 2)

    row = damaged(volume, tmp_path, "style-lora", "pytorch_lora_weights.safetensors", lokr)
    with pytest.raises(ModelCorrupt, match="style-lora"):
        load_style(row)
    (tmp_path / "style-lora" / "pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(ModelMissing, match="style-lora"):
        load_style(row)


def test_synthetic_weights_repeat_and_leave_nothing_at_zero(volume: Path, tmp_path: Path) -> None:
    name = "diffusion_pytorch_model.fp16.safetensors"
    synthetic.write("controlnet-canny-sdxl", tmp_path, "tiny", ROWS.index("controlnet-canny-sdxl"))
    assert (tmp_path / name).read_bytes() == (volume / "controlnet-canny-sdxl" / name).read_bytes()
    assert all(tensor.std() > 0 for tensor in safetensors.load_file(tmp_path / name).values() if tensor.numel() > 1)


@pytest.mark.parametrize("row", ROWS)
def test_the_files_of_the_registry_are_written_and_no_others(volume: Path, row: str) -> None:
    folder = volume / row
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == set(row_named(row).files)
