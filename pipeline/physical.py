"""Physical size: what a job's millimetres, dots per inch and pixels say of each other.

Every file of a job prints at the same width. `width_mm` states it; `dpi` states it through the dots of the widest PNG,
or through the working frame's pixels where no PNG is asked for; beside `width_mm`, `dpi` sets how wide that PNG is.
"""

from __future__ import annotations

from pipeline.schema import Output

MM_PER_INCH = 25.4

CSS_PX_PER_INCH = 96
"""What a pixel of the working frame measures in PDF and DXF where no physical size is asked for (CSS Values 4, 5.2)."""


def has_physical_size(output: Output) -> bool:
    """Whether the job says how large its piece is."""
    return output.width_mm is not None or output.dpi is not None


def dots_across(width_mm: float, dpi: float) -> int:
    """Pixels of a PNG that is `width_mm` wide at `dpi`."""
    return round(width_mm * dpi / MM_PER_INCH)


def printed_width_mm(output: Output, frame_width_px: int) -> float | None:
    """Width of the piece that a frame of `frame_width_px` becomes; None where the job states no physical size."""
    if output.width_mm is not None:
        return output.width_mm
    if output.dpi is None:
        return None
    dots = max(output.png_widths) if "png" in output.formats else frame_width_px
    return dots * MM_PER_INCH / output.dpi


def piece_width_mm(output: Output, frame_width_px: int) -> float:
    """Width of the piece in PDF, DXF and the like: as the job states it, else with 96 pixels to the inch."""
    stated_mm = printed_width_mm(output, frame_width_px)
    return frame_width_px / CSS_PX_PER_INCH * MM_PER_INCH if stated_mm is None else stated_mm
