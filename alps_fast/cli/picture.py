"""Pictures of results: panels pixel by pixel, one grey scale, one colour scale for deviations and errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

DPI = 100
GAP, TITLE, HEADING, BAR = 14, 26, 44, 64  # pixels: between panels, above a panel, above all, beside a colour map


@dataclass(frozen=True)
class Panel:
    """An image (H, W), or (H, W, 3) in [0, 1], with its title; `is_map` draws it in colour with a colour bar."""

    image: np.ndarray
    title: str
    is_map: bool = False


def draw(path: Path, heading: str, rows: list[list[Panel]], grey: tuple[float, float], largest: float) -> None:
    """Write the panels as a picture; grey images span `grey`, maps span (0, largest). All panels have one shape.

    Image pixels become squares of whole screen pixels, so nothing is smoothed away.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = rows[0][0].image.shape[:2]
    zoom = max(1, round(384 / max(height, width)))
    cell = (height * zoom, width * zoom)
    columns = max(len(row) for row in rows)
    bar = BAR if any(panel.is_map for row in rows for panel in row) else 0
    total = (HEADING + len(rows) * (cell[0] + TITLE + GAP), GAP + columns * (cell[1] + GAP) + bar)
    figure = Figure(figsize=(total[1] / DPI, total[0] / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)

    def axes(left: int, top: int, high: int, wide: int):  # type: ignore[no-untyped-def]
        return figure.add_axes((left / total[1], 1 - (top + high) / total[0], wide / total[1], high / total[0]))

    figure.text(GAP / total[1], 1 - 0.5 * HEADING / total[0], heading, fontsize=13, fontweight="bold", va="center")
    for i, row in enumerate(rows):
        for j, panel in enumerate(row):
            left, top = GAP + j * (cell[1] + GAP), HEADING + i * (cell[0] + TITLE + GAP) + TITLE
            area = axes(left, top, *cell)
            area.set_axis_off()
            area.set_title(panel.title, fontsize=11, loc="left", pad=5)
            low, high = (0.0, largest) if panel.is_map else grey
            shown = area.imshow(panel.image, cmap="magma" if panel.is_map else "gray", vmin=low, vmax=high,
                                interpolation="nearest", aspect="auto")
            if panel.is_map:
                scale = figure.colorbar(shown, cax=axes(left + cell[1] + 8, top, cell[0], 12))
                scale.outline.set_visible(False)
                scale.ax.tick_params(labelsize=9, length=2)
                scale.ax.locator_params(nbins=5)
    figure.savefig(path, format="png", dpi=DPI)
