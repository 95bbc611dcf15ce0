"""What a request says of places in the photo, checked against it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import SchemaError
from pipeline.schema import JobInput, SubjectBox, SubjectPoint
from pipeline.subject import SubjectPrior
from pipeline.types import Photo, Warning

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are, as the caller says.

    Attributes:
        regions: (x0, y0, x1, y1) to fill in, in pixels of the upright photo.
        protect: the same, never touched.
        subject: which vehicle, in pixels of the working frame.
        warnings: of boxes that had to be cut to the photo.
    """

    regions: tuple[Rectangle, ...]
    protect: tuple[Rectangle, ...]
    subject: SubjectPrior
    warnings: tuple[Warning, ...]


def check_places(job: JobInput, photo: Photo) -> Places:
    """The places of `job`, cut to `photo`.

    Raises:
        SchemaError: one lies wholly outside the photo.
    """
    clipped: list[Warning] = []
    wanted = job.sanitize
    return Places(
        regions=tuple(_inside(b, f"sanitize.regions[{i}]", photo, clipped) for i, b in enumerate(wanted.regions)),
        protect=tuple(_inside(b, f"sanitize.protect[{i}]", photo, clipped) for i, b in enumerate(wanted.protect)),
        subject=_prior(job, photo, clipped),
        warnings=tuple(clipped),
    )


def _prior(job: JobInput, photo: Photo, clipped: list[Warning]) -> SubjectPrior:
    if isinstance(job.subject, SubjectPoint):
        x, y = job.subject.point
        if not (0 <= x < photo.source_width_px and 0 <= y < photo.source_height_px):
            raise SchemaError(f"lies outside the photo, {_size(photo)}", field="subject.point")
        scale_x, scale_y = photo.width_px / photo.source_width_px, photo.height_px / photo.source_height_px
        return SubjectPrior("point", (x * scale_x, y * scale_y))
    if isinstance(job.subject, SubjectBox):
        box = photo.to_frame(_inside(job.subject.box, "subject.box", photo, clipped))
        return SubjectPrior("box", (box.x0, box.y0, box.x1, box.y1))
    return SubjectPrior(job.subject, ())


def _inside(box: tuple[float, ...], path: str, photo: Photo, clipped: list[Warning]) -> Rectangle:
    """`box` cut to the photo; a box wholly outside it is an error, one partly outside a warning."""
    x0, y0, x1, y1 = box
    width_px, height_px = photo.source_width_px, photo.source_height_px
    if x1 <= 0 or y1 <= 0 or x0 >= width_px or y0 >= height_px:
        raise SchemaError(f"lies outside the photo, {_size(photo)}", field=path)
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, float(width_px)), min(y1, float(height_px))
    if inside != (x0, y0, x1, y1):
        clipped.append(Warning("box_clipped", f"{path} was cut to the photo, {_size(photo)}"))
    return inside


def _size(photo: Photo) -> str:
    return f"which is {photo.source_width_px} × {photo.source_height_px} px"
