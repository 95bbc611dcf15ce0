"""GroundingDINO: where in a picture the things are that words name (transformers' implementation).

Everything runs in float32, on a GPU with its matrix products in TF32: the network multiplies image and text features
without a norm in between, and in float16 those products pass 65,504 (the library cuts them at 50,000 and overflows
elsewhere). At 232 M parameters that costs 0.9 GB and a few milliseconds.

Its calls are not recorded as CUDA graphs: in each of its twelve layers of deformable attention the library compares
sizes that lie on the device, which is waited for, and these sizes and the caption's length come from the host.
"""

# ruff: noqa: PLC0415 - torch and transformers are heavy, and only studio workers have them

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.device import Device
from models.files import ModelFiles
from models.levels import Levels
from models.pretrained import load_pretrained
from models.requests import Detection
from pipeline.errors import ModelCorrupt
from pipeline.types import F32, U8

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

FILES = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
"""What is needed of the repository IDEA-Research/grounding-dino-base."""


def load(files: ModelFiles, device: Device) -> GroundingDino:
    """The detector, on its device.

    Raises:
        ModelMissing, ModelCorrupt: a file is not there, or its content does not fit the others.
    """
    import torch
    from transformers import BertTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    config = GroundingDinoConfig.from_dict(files.json("config.json"))
    network = load_pretrained(GroundingDinoForObjectDetection, config, files, "model.safetensors")
    network.to(device.place(), torch.float32)
    for name in FILES:  # the tokenizer takes a folder: it would do without some, and fail in its own way on others
        if name.endswith(".json"):
            files.json(name)
        else:
            files.path(name)
    return GroundingDino(
        files.name,
        device,
        network,
        BertTokenizer.from_pretrained(files.folder, local_files_only=True),
        GroundingDinoImageProcessorPil.from_dict(files.json("preprocessor_config.json")),
    )


class GroundingDino:
    """The detector.

    Attributes:
        networks: the one network.
    """

    def __init__(self, name: str, device: Device, network: torch.nn.Module, tokenizer: Any, processor: Any) -> None:
        import torch

        self.networks = (network,)
        self._name = name
        self._device = device.place()
        self._tokenizer = tokenizer
        self._levels = Levels(processor, device.place(), torch.float32)

    def detect(
        self, rgb: U8, phrases: Sequence[str], box_threshold: float, text_threshold: float
    ) -> tuple[Detection, ...]:
        """What of `phrases` is in the picture, best first.

        Args:
            rgb: uint8 [H, W, 3], sRGB.
            phrases: distinct names of things, without full stops; together at most about 200 words.
            box_threshold: a box counts whose best word's probability is above it.
            text_threshold: a word names a box if its probability there is above it. A box that no word names, which
                takes a higher `text_threshold` than `box_threshold`, is left out.

        Raises:
            ModelCorrupt: the network gives numbers that are none.
        """
        if not phrases:
            return ()
        text = self._tokenizer(_caption(phrases), return_tensors="pt", return_token_type_ids=True)
        probabilities, boxes = self._forward(rgb, text)
        owners = _owners(text["input_ids"][0].numpy(), self._tokenizer.convert_tokens_to_ids("."), len(phrases))
        height_px, width_px = rgb.shape[:2]
        found = []
        for words, box in zip(probabilities, boxes, strict=True):
            score = float(words.max())
            phrase = _phrase(words[: len(owners)], owners, text_threshold)
            x0, x1 = (float(x) * width_px for x in box[[0, 2]])
            y0, y1 = (float(y) * height_px for y in box[[1, 3]])
            if score > box_threshold and phrase is not None and x0 < x1 and y0 < y1:
                found.append(Detection(phrases[phrase], (x0, y0, x1, y1), score))
        return tuple(sorted(found, key=lambda detection: -detection.score))

    def _forward(self, rgb: U8, text: Any) -> tuple[F32, F32]:
        """Probability of each word for each box, and the boxes.

        Returns:
            float32 [N, words], and float32 [N, 4]: x0, y0, x1, y1 as shares of the picture, 0 to 1.
        """
        import torch

        with torch.inference_mode(), _tf32():
            # Without a mask of its pixels the whole picture counts, which has no border.
            made = self.networks[0](self._levels(rgb), **{name: value.to(self._device) for name, value in text.items()})
            probabilities, boxes = made.logits[0].sigmoid(), made.pred_boxes[0]
            # Words that the caption lacks stand at minus infinity, so NaN is the sign to look for.
            if bool(probabilities.isnan().any() | ~boxes.isfinite().all()):
                raise ModelCorrupt(f"{self._name} gives numbers that are none: its weights are damaged")
            centre, half = boxes[:, :2], boxes[:, 2:] / 2
            corners = torch.cat([centre - half, centre + half], dim=1).clamp(0.0, 1.0)
        return probabilities.cpu().numpy(), corners.cpu().numpy()


def _caption(phrases: Sequence[str]) -> str:
    """As the network was trained: lower case, a full stop behind each phrase."""
    return " ".join(f"{phrase.lower()}." for phrase in phrases)


def _owners(ids: npt.NDArray[np.int64], full_stop: int, phrases: int) -> npt.NDArray[np.int64]:
    """For each token of a caption the phrase that it belongs to; −1 for full stops and the two that frame the text."""
    stops = ids == full_stop
    owners = np.cumsum(stops)
    owners[stops | (owners >= phrases)] = -1
    owners[0] = -1
    return owners


def _phrase(words: F32, owners: npt.NDArray[np.int64], text_threshold: float) -> int | None:
    """The phrase of the most probable word above the threshold; None where there is none."""
    named = np.where((owners >= 0) & (words > text_threshold), words, -1.0)
    best = int(named.argmax())
    return int(owners[best]) if named[best] >= 0.0 else None


@contextmanager
def _tf32() -> Iterator[None]:
    """Matrix products of float32 with 10 bits of mantissa, where the GPU has them so; convolutions do by default."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
