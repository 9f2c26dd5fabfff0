"""The chart: how far the study came, experiment by experiment, or how the running trial does against the incumbent."""

from __future__ import annotations

from typing import ClassVar, Literal

from rich.text import Text
from textual.app import ComposeResult
from textual_hires_canvas import HiResMode

from loop.events import Verdict
from tui import curves, look, words
from tui.panes.pane import Pane, Words
from tui.panes.plot import Plot
from tui.view import Topic, View

MARKS: dict[Verdict, tuple[str, str]] = {
    "discard": ("•", look.FAINT),
    "reject": ("○", look.AMBER),
    "crash": ("×", look.RED),
    "keep": ("●", look.GREEN),
}
"""How each verdict is marked, in the order of drawing: what was kept is never covered."""


class ChartPane(Pane, can_focus=True):
    shows: ClassVar[frozenset[Topic]] = frozenset(("state", "steps"))
    number = 3
    label = "chart"

    DEFAULT_CSS = """
    ChartPane Plot { display: none; height: 1fr; }
    ChartPane.-drawn Plot { display: block; }
    ChartPane.-drawn #awaited { display: none; }
    ChartPane #awaited { color: $secondary; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode: Literal["history", "run"] = "history"
        self._drawn: object = None

    def compose(self) -> ComposeResult:
        yield Words(id="awaited")
        yield Plot()

    def switch(self) -> None:
        self.mode = "run" if self.mode == "history" else "history"
        self.stale = True

    def show(self, view: View) -> None:
        if self.mode == "history":
            self._show_history(view)
        else:
            self._show_run(view)

    def _await(self, said: str) -> None:
        self._drawn = None
        self.set_class(False, "-drawn")
        self.query_one("#awaited", Words).say(Text(said, look.FAINT), layout=True)
        self.subtitle("")

    def _begin(self, drawing: object) -> Plot | None:
        """The cleared plot, or None where `drawing` is what it shows already."""
        if drawing == self._drawn:
            return None
        self._drawn = drawing
        self.set_class(True, "-drawn")
        plot = self.query_one(Plot)
        plot.clear()
        return plot

    def _show_history(self, view: View) -> None:
        state = view.state
        better = "lower" if state.direction == "minimize" else "higher"
        history = curves.history(state, view.luck)
        band = f" · band: ±2σ of one trial, {words.spread(history.reach)}" if history and history.reach else ""
        self.entitle(f"{words.one_line(state.metric)}, {better} is better{band}" if state.metric else self.label)
        if history is None:
            failed = state.experiments and state.experiments[-1].verdict == "crash"
            self._await(
                "the unchanged script does not run; its experiment's page has the log"
                if failed
                else "the baseline is being measured; every experiment will be a point here"
            )
            return
        plot = self._begin(history)
        if plot is None:
            return
        plot.set_xlimits(0.0, float(history.last))
        plot.set_ylimits(history.low, history.high)
        if history.band:
            plot.scatter(
                [x for x, _ in history.band], [y for _, y in history.band], marker="·", marker_style=look.FAINT
            )
        _line(plot, [(0.0, history.baseline), (float(history.last), history.baseline)], look.LINE)
        _line(plot, history.stairs, look.GREEN)
        for verdict, (mark, style) in MARKS.items():
            if points := history.points[verdict]:
                plot.scatter([x for x, _ in points], [y for _, y in points], marker=mark, marker_style=style)
        self.subtitle("● keep  • discard  × crash  ○ reject")

    def _show_run(self, view: View) -> None:
        step, best = view.step, view.state.best
        of = f" · {words.name(step.number)}" if step else ""
        self.entitle(f"loss of this run{of}")
        run = curves.run(view.steps, view.rival)
        if run is None:
            self._await("the loss of the running trial will be drawn here, against the incumbent's")
            return
        plot = self._begin(run)
        if plot is None:
            return
        plot.set_xlimits(0.0, run.last)
        plot.set_ylimits(run.low, run.high)
        _line(plot, run.rival, look.FAINT)
        _line(plot, run.mine, look.BLUE)
        against = f"  grey: incumbent {words.name(best.number)}" if best and run.rival else ""
        self.subtitle(f"blue: this run{against}  over {run.axis}")


def _line(plot: Plot, points: curves.Points, style: str) -> None:
    if len(points) > 1:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        plot.plot(xs, ys, line_style=style, hires_mode=HiResMode.BRAILLE)
