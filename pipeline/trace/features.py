"""A least width for everything that is printed or cut: what a knife or a screen can't hold is merged or widened.

Width is measured by morphological opening (Serra, *Image Analysis and Mathematical Morphology*, 1982): a pixel is wide
enough where a disc fits around it within its own region. A disc also rounds every corner, and a corner is not narrow.
So what the opening takes away counts as narrow only where one of its 4-connected pieces

- touches no opened pixel of its own region, or
- joins two opened parts of it, a neck, or
- reaches further from them than a disc leaves free in a right angle, diameter · (√2 − 1) / 2, plus one pixel.

The disc of diameter n, the next whole number of pixels, holds the pixels whose centres lie within n / 2 of its own.
Nothing beyond the map counts as ink.

This is a promise about the map. Fitting takes some of the width back: an outline may pass each crack by τ px, so two
that face each other may come nearer by 2 · τ. A caller that promises a width on the drawing asks for that width plus
2 · τ; pointed corners stay pointed there too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.colour import palette_lab
from pipeline.compiled import inlined, kernel
from pipeline.regions import label_components
from pipeline.types import I32, U8, UNPAINTED, IndexMap, Mask

LINE_LENGTHS = 4
"""A line of the darkest ink at least this many minima long is widened; what is shorter is merged."""

BEYOND = 128
"""Label of what lies outside the map: no ink's, and not `UNPAINTED`."""

LABELS = 256

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class FeatureReport:
    """What it took to hold a least width.

    Attributes:
        min_feature_px: the width that was asked for.
        merged_regions: regions of the map of which nothing is left.
        merged_px: pixels that went to a neighbour.
        widened_px: pixels that a line of the darkest ink took to become wide enough.
        narrowest_px: a width that the result holds everywhere, in whole pixels, sought up to twice the minimum. It is
            below `min_feature_px` only where the whole map is.
    """

    min_feature_px: float
    merged_regions: int
    merged_px: int
    widened_px: int
    narrowest_px: float


def hold_min_feature(image: IndexMap, min_feature_px: float) -> tuple[IndexMap, FeatureReport]:
    """A map in which no ink's region, and no gap of unpainted ground, is narrower than `min_feature_px`.

    Small regions go to the neighbour with which they share the longest border, parts of larger ones to what lies
    nearest. Lines of the darkest ink are widened instead. Ground is bared only where no other ink is near. A map that
    holds the width comes back unchanged.

    Args:
        image: index uint8 [H, W].
        min_feature_px: at least 0; up to 1 it changes nothing.

    Raises:
        ValueError: the width is negative or not a number.
    """
    if not (math.isfinite(min_feature_px) and min_feature_px >= 0):
        raise ValueError("min_feature_px must be a number from 0")
    disc_px = max(1, math.ceil(min_feature_px))
    index = np.ascontiguousarray(image.index)
    out = index.copy()
    if disc_px > 1:
        _widen_lines(out, disc_px, int(palette_lab(image.palette)[:, 0].argmin()))
    widened = out != index
    _merge_narrow(out, len(image.palette), disc_px)
    merged = (out != index) & ~widened
    ids, count = label_components(index)
    left = np.bincount(ids[out == index], minlength=count)
    report = FeatureReport(
        min_feature_px=min_feature_px,
        merged_regions=int(np.count_nonzero(left == 0)),
        merged_px=int(np.count_nonzero(merged)),
        widened_px=int(np.count_nonzero(widened & (out != index))),
        narrowest_px=float(_narrowest_px(out, disc_px)),
    )
    return IndexMap(out, image.palette), report


def _disc(diameter_px: int) -> U8:
    """uint8 [n, n]: 1 where a pixel's centre lies within n / 2 of the middle."""
    offset = np.arange(diameter_px) - (diameter_px - 1) / 2
    return (offset[:, None] ** 2 + offset**2 <= (diameter_px / 2) ** 2).astype(np.uint8)


def _opened(index: U8, disc_px: int) -> Mask:
    """Whether a disc of one label alone covers each pixel, bool [H, W]; all labels are opened at once."""
    disc, ahead = _disc(disc_px), (disc_px - 1) // 2
    behind = disc_px - 1 - ahead
    framed = cv2.copyMakeBorder(index, *(4 * (disc_px,)), cv2.BORDER_CONSTANT, value=(BEYOND,))
    least = cv2.erode(framed, disc, anchor=(ahead, ahead))
    most = cv2.dilate(framed, disc, anchor=(ahead, ahead))
    covered = cv2.dilate((least == most).astype(np.uint8), disc, anchor=(behind, behind))
    return np.asarray(covered[disc_px:-disc_px, disc_px:-disc_px] != 0)


def _narrow_pieces(index: U8, disc_px: int) -> tuple[I32, Mask]:
    """int32 [H, W], pieces of what the opening keeps and takes away, and bool [pieces]: which of them are narrow."""
    opened = _opened(index, disc_px)
    # Both UNPAINTED and the inks, 63 at most, keep apart in seven bits; the eighth tells the two kinds of piece.
    ids, count = label_components(((index & 127) * 2 + opened).astype(np.uint8))
    reach_px = disc_px * (math.sqrt(2) - 1) / 2 + 1
    # The slack keeps a diagonal step, √2, within a reach of √2 on every machine.
    return ids, _judge(index, opened, ids, count, reach_px * reach_px + 1e-6)


@inlined
def _within(index: U8, opened: Mask, y: int, x: int, reach_squared: float) -> bool:
    """Whether an opened pixel of the same label lies within reach of (x, y)."""
    height, width = index.shape
    reach = int(math.sqrt(reach_squared))
    for v in range(max(y - reach, 0), min(y + reach + 1, height)):
        for u in range(max(x - reach, 0), min(x + reach + 1, width)):
            if opened[v, u] and index[v, u] == index[y, x] and (u - x) ** 2 + (v - y) ** 2 <= reach_squared:
                return True
    return False


@kernel
def _judge(index: U8, opened: Mask, ids: I32, count: int, reach_squared: float) -> Mask:
    """Which pieces are narrow, by the rule that the module states."""
    height, width = index.shape
    narrow, touched = np.zeros(count, np.bool_), np.full(count, -1, np.int32)
    for y in range(height):
        for x in range(width):
            if opened[y, x]:
                continue
            piece = ids[y, x]
            for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                if 0 <= v < height and 0 <= u < width and opened[v, u] and index[v, u] == index[y, x]:
                    narrow[piece] |= touched[piece] >= 0 and touched[piece] != ids[v, u]
                    touched[piece] = ids[v, u]
            narrow[piece] = narrow[piece] or not _within(index, opened, y, x, reach_squared)
    for y in range(height):
        for x in range(width):
            if not opened[y, x] and touched[ids[y, x]] < 0:
                narrow[ids[y, x]] = True
    return narrow


def _widen_lines(index: U8, disc_px: int, line_ink: int) -> None:
    """Lines of `line_ink` that are long and narrow take a disc around each of their pixels, in place."""
    ids, narrow = _narrow_pieces(index, disc_px)
    thin = (narrow[ids] & (index == line_ink)).astype(np.uint8)
    # A line may step from corner to corner, so its pieces are joined over corners too.
    _, lines, stats, _ = cv2.connectedComponentsWithStats(thin, connectivity=8)
    long = np.maximum(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= LINE_LENGTHS * disc_px
    long[0] = False
    if disc_px <= min(index.shape):
        _draw_wide(index, long[lines], _disc(disc_px), line_ink)


@kernel
def _draw_wide(index: U8, line: Mask, disc: U8, line_ink: int) -> None:
    """Stamps a disc on each pixel of `line`; one at the map's border moves inward, so that it is whole."""
    height, width = index.shape
    n = len(disc)
    for y in range(height):
        for x in range(width):
            if line[y, x]:
                first_x, first_y = min(max(x - n // 2, 0), width - n), min(max(y - n // 2, 0), height - n)
                for v in range(n):
                    for u in range(n):
                        if disc[v, u]:
                            index[first_y + v, first_x + u] = line_ink


def _merge_narrow(index: U8, inks: int, disc_px: int) -> None:
    """Gives narrow pieces to their neighbours, in place, until none is left or the map is one label.

    No pixel takes a label twice, so the rounds end; where they end too early, a patch in the commonest ink covers the
    place, larger each time.
    """
    if disc_px == 1:
        return
    seen, patch_px = np.zeros(index.shape, np.uint64), disc_px
    while True:
        ids, narrow = _narrow_pieces(index, disc_px)
        if not narrow.any():
            return
        if not _give_away(index, inks, ids, narrow, seen):
            if index.min() == index.max():
                return
            _patch(index, narrow[ids], patch_px)
            patch_px *= 2


def _patch(index: U8, narrow: Mask, patch_px: int) -> None:
    """Covers each narrow place and `patch_px` around it with the ink that is commonest there, in place."""
    square = np.ones((2 * patch_px + 1, 2 * patch_px + 1), np.uint8)
    count, patches = cv2.connectedComponents(cv2.dilate(narrow.astype(np.uint8), square), connectivity=4)
    for patch in range(1, count):
        here = patches == patch
        areas = np.bincount(index[here], minlength=LABELS)
        painted = areas[:UNPAINTED]
        index[here] = painted.argmax() if painted.any() else UNPAINTED


@inlined
def _bit(label: int) -> int:
    # UNPAINTED shares the last bit with ink 63.
    return np.uint64(1) << np.uint64(label & 63)  # type: ignore[return-value]


@inlined
def _best(votes: I32, inks: int, own: int, seen: np.uint64, bare: bool) -> int:
    """The label with most votes that a pixel or piece has not had, ink before ground; −1 where there is none."""
    best = -1
    for label in range(inks):
        if votes[label] > 0 and label != own and (seen & _bit(label)) == 0 and (best < 0 or votes[label] > votes[best]):
            best = label
    if best < 0 and bare and votes[UNPAINTED] > 0 and own != UNPAINTED and (seen & _bit(UNPAINTED)) == 0:
        best = UNPAINTED
    return best


@inlined
def _list_pieces(ids: I32, narrow: Mask) -> tuple[I32, I32]:
    """Pixels of the narrow pieces, y · W + x, piece by piece, and where each piece's begin (int32 [pieces + 1])."""
    height, width = ids.shape
    start = np.zeros(len(narrow) + 2, np.int32)
    for y in range(height):
        for x in range(width):
            if narrow[ids[y, x]]:
                start[ids[y, x] + 2] += 1
    for i in range(2, len(start)):
        start[i] += start[i - 1]
    pixels = np.empty(start[-1], np.int32)
    for y in range(height):
        for x in range(width):
            if narrow[ids[y, x]]:
                pixels[start[ids[y, x] + 1]] = y * width + x
                start[ids[y, x] + 1] += 1
    return pixels, start[:-1]


@inlined
def _vote(index: U8, pending: Mask, y: int, x: int, votes: I32, more: int) -> None:
    """Adds `more` to the votes of each settled neighbour's label."""
    height, width = index.shape
    for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
        if 0 <= v < height and 0 <= u < width and not pending[v, u]:
            votes[index[v, u]] += more


@inlined
def _flood(index: U8, inks: int, pending: Mask, frontier: I32, seen: U64, bare: bool) -> int:
    """Settles pending pixels ring by ring from what is settled; how many.

    A ring is decided as a whole before it is written, so the order of its pixels changes nothing.
    """
    height, width = index.shape
    votes = np.zeros(LABELS, np.int32)
    settled = 0
    while len(frontier) > 0:
        labels = np.full(len(frontier), -1, np.int32)
        for i in range(len(frontier)):
            y, x = frontier[i] // width, frontier[i] % width
            _vote(index, pending, y, x, votes, 1)
            labels[i] = _best(votes, inks, index[y, x], seen[y, x], bare)
            _vote(index, pending, y, x, votes, -1)
        following = np.empty(4 * len(frontier), np.int32)
        n = 0
        for i in range(len(frontier)):
            y, x = frontier[i] // width, frontier[i] % width
            if labels[i] >= 0 and pending[y, x]:
                seen[y, x] |= _bit(index[y, x])
                index[y, x], pending[y, x] = labels[i], False
                settled += 1
                for v, u in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
                    if 0 <= v < height and 0 <= u < width and pending[v, u]:
                        following[n] = v * width + u
                        n += 1
        frontier = following[:n]
    return settled


@kernel
def _give_away(index: U8, inks: int, ids: I32, narrow: Mask, seen: U64) -> int:
    """One round: whole regions go to the longest border, the rest ring by ring; the number of pixels changed.

    Args:
        index: uint8 [H, W], changed in place; inks: every painted label is below.
        ids, narrow: as `_narrow_pieces` makes them.
        seen: uint64 [H, W], a bit for each label that a pixel has had, kept up.
    """
    height, width = index.shape
    pixels, start = _list_pieces(ids, narrow)
    pending = np.zeros((height, width), np.bool_)
    for p in pixels:
        pending[p // width, p % width] = True
    labels = np.full(len(narrow), -1, np.int32)
    votes = np.zeros(LABELS, np.int32)
    for piece in range(len(narrow)):
        votes[:] = 0
        had, own = np.uint64(0), -1
        for p in pixels[start[piece] : start[piece + 1]]:
            own = index[p // width, p % width]
            had |= seen[p // width, p % width]
            _vote(index, pending, p // width, p % width, votes, 1)
        if own >= 0 and votes[own] == 0:
            labels[piece] = _best(votes, inks, own, had, True)
    changed = 0
    for piece in range(len(narrow)):
        for p in pixels[start[piece] : start[piece + 1]] if labels[piece] >= 0 else pixels[:0]:
            y, x = p // width, p % width
            seen[y, x] |= _bit(index[y, x])
            index[y, x], pending[y, x] = labels[piece], False
            changed += 1
    changed += _flood(index, inks, pending, pixels, seen, False)
    return changed + _flood(index, inks, pending, pixels, seen, True)


def _narrowest_px(index: U8, disc_px: int) -> int:
    """The widest disc, up to twice `disc_px`, that leaves nothing narrow; smaller ones are tried where it must be."""
    held = disc_px
    while held > 1 and _narrow_pieces(index, held)[1].any():
        held -= 1
    if held < disc_px:
        return held
    while held < 2 * disc_px and not _narrow_pieces(index, held + 1)[1].any():
        held += 1
    return held
