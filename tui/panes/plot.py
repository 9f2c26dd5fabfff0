"""textual-plot's chart, made quiet: thin axes at the left and below only, and safe where there are no colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Grid
from textual.reactive import reactive
from textual.strip import Strip
from textual.widgets import Static
from textual_hires_canvas import Canvas, HiResMode
from textual_plot import PlotWidget


class _QuietCanvas(Canvas):
    def render_line(self, y: int) -> Strip:
        # Segments without a style crash Textual's filters, the one of NO_COLOR among them.
        return super().render_line(y).apply_style(self.rich_style)

    def draw_rectangle_box(self, x0: int, y0: int, x1: int, y1: int, thickness: int = 1, style: str = "white") -> None:
        """The frame around the plot: its left and lower sides alone."""
        self.draw_line(x0, y0, x0, y1 - 1, char="│", style=style)
        self.draw_line(x0, y1, x1, y1, char="─", style=style)
        self.set_pixel(x0, y1, char="└", style=style)


class Plot(PlotWidget):
    DEFAULT_CSS = """
    Plot > .plot--axis { color: $foreground 30%; }
    Plot > .plot--tick { color: $text-muted; text-style: none; }
    Plot > .plot--label { color: $text-muted; text-style: none; }
    """
    can_focus = False
    margin_top = reactive(0, init=False)
    margin_bottom = reactive(1, init=False)
    margin_left = reactive(8, init=False)

    def __init__(self) -> None:
        super().__init__(allow_pan_and_zoom=False)

    def compose(self) -> ComposeResult:
        with Grid():
            yield _QuietCanvas(1, 1, id="margin-top")
            yield _QuietCanvas(1, 1, id="margin-left")
            yield _QuietCanvas(1, 1, id="plot")
            yield _QuietCanvas(1, 1, id="margin-bottom")
        # PlotWidget looks for its legend; ours is in the pane's frame.
        yield Static(id="legend")

    @on(events.Mount)
    def _without_parts(self, event: events.Mount) -> None:
        """A cockpit that closes mounts nothing any more, and PlotWidget would miss what it is composed of."""
        if not self.children:
            event.prevent_default()

    def combine_quad_with_pixel(self, quad: tuple[int, int, int, int], canvas: Any, x: int, y: int) -> str:
        """Ticks at the left and lower axes only."""
        there: str = canvas.get_pixel(x, y)[0]
        if there in "└":
            return there
        return {(0, 0, 0, 2): "┤", (0, 0, 2, 0): "┬"}.get(quad, there)

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        if len(points) > 1:
            xs, ys = [x for x, _ in points], [y for _, y in points]
            self.plot(xs, ys, line_style=style, hires_mode=HiResMode.BRAILLE)
