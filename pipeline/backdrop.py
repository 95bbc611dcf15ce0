"""Taking the background away: the subject's soft probability made into a clean cut along the map's own borders."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import NoSubject
from pipeline.regions import label_components
from pipeline.types import F32, U8, Mask

I32 = npt.NDArray[np.int32]

_SURE = 0.75  # a region this much inside or outside goes whole
_LEAST_PIECE = 0.02  # of the largest piece of the subject
_BARRED = np.float32(1e4)  # ΔE that keeps subject and background apart


def subject_mask(index: U8, subject: U8) -> Mask:
    """Which pixels stay.

    Regions that lie mostly inside or outside go whole, so that the cut runs along drawn borders; only a region that the
    subject shares with its ground is cut where the probability crosses one half.

    Args:
        index: uint8 [H, W], the label map.
        subject: uint8 [H, W], probability × 255.

    Returns:
        bool [H, W], without specks and holes.

    Raises:
        NoSubject: nothing would stay.
    """
    ids, count = label_components(index)
    area = np.bincount(ids.ravel(), minlength=count)
    inside = np.bincount(ids.ravel(), weights=subject.ravel(), minlength=count) / (255.0 * area)
    keep = np.where(inside >= _SURE, 1, np.where(inside <= 1.0 - _SURE, 0, 2))[ids]
    mask = ((keep == 1) | ((keep == 2) & (subject > 127))).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    pieces, piece_of, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if pieces == 1:
        raise NoSubject("no vehicle stands out to cut from its background; name it with subject", field="background")
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    mask = (sizes >= _LEAST_PIECE * sizes.max())[piece_of].astype(np.uint8)
    _, outside = cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), connectivity=4)
    filled: Mask = outside[1:-1, 1:-1] != outside[0, 0]
    return filled


def cut_out(index: U8, cells: I32, costs: F32, subject: U8) -> tuple[U8, I32, F32]:
    """Give the background a label of its own, K, that no region of the subject can merge into.

    Args:
        index: uint8 [H, W], labels below K.
        cells, costs: rows of each pixel, and float32 [N, K] costs.
        subject: uint8 [H, W], probability × 255.

    Returns:
        The same three with label K, and one cost column and one row more.

    Raises:
        NoSubject: nothing would stay.
    """
    stays = subject_mask(index, subject)
    rows, inks = costs.shape
    wider = np.full((rows + 1, inks + 1), _BARRED, np.float32)
    wider[:rows, :inks] = costs
    wider[rows, inks] = 0.0
    return np.where(stays, index, np.uint8(inks)), np.where(stays, cells, np.int32(rows)), wider
