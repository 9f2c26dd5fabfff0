"""The chart: how far the study came, experiment by experiment; how the running trial does against the incumbent; and
what came of each version of program.md."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal

from loop.events import Verdict
from tui import curves, look, words
from tui.panes.pane import Pane, Words
from tui.panes.rows import Rows
from tui.view import Topic, View

if TYPE_CHECKING:
    from tui.panes.plot import Plot

MARKS: dict[Verdict, str] = {"discard": "•", "reject": "○", "crash": "×", "keep": "●"}
"""How each verdict is marked, in the order of drawing: what was kept is never covered."""

Mode = Literal["history", "run", "program"]
MODES: tuple[Mode, ...] = get_args(Mode)

BOTH_AXES = 84
"""Columns from which on the run is drawn twice, over time and over steps."""


class ChartPane(Pane, can_focus=True):
    shows: ClassVar[frozenset[Topic]] = frozenset(("state", "steps"))
    number = 3
    label = "chart"

    DEFAULT_CSS = """
    ChartPane Horizontal, ChartPane Rows { display: none; height: 1fr; }
    ChartPane Plot { height: 1fr; width: 1fr; }
    ChartPane.-drawn Horizontal { display: block; layout: horizontal; }
    ChartPane.-told Rows { display: block; }
    ChartPane.-drawn #awaited, ChartPane.-told #awaited { display: none; }
    ChartPane #awaited { color: $text-muted; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.mode: Mode = "history"
        self._drawn: object = None
        self._seen: object = None
        self._plots: Sequence[Plot] = ()
        self._loading = False

    async def _load(self) -> None:
        """Make the plots after the first sight: numpy, which they stand on, takes as long to load as all the rest."""
        row = self.query_one(Horizontal)
        loaded = await asyncio.to_thread(importlib.import_module, "tui.panes.plot")
        if not row.is_attached:
            return  # The cockpit was left meanwhile.
        plots = [loaded.Plot(), loaded.Plot()]
        await row.mount(*plots)
        if all(plot.children for plot in plots):  # Else it was left just now, and they have no parts.
            self._plots, self.stale = plots, True

    def compose(self) -> ComposeResult:
        yield Words(id="awaited")
        yield Horizontal()
        yield Rows()

    def switch(self) -> None:
        """Go to the next of the three views."""
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]
        self._seen, self.stale = None, True

    def show(self, view: View) -> None:
        # The history moves with records alone; a run's steps are many, and each is a chart drawn.
        seen = (
            view.state.seq,
            view.connected,
            self.content_size,
            (view.step, len(view.rival)) if self.mode == "run" else None,
        )
        if seen == self._seen:
            return
        self._seen = seen
        match self.mode:
            case "history":
                self._show_history(view)
            case "run":
                self._show_run(view)
            case "program":
                self._show_program(view)

    def on_resize(self, event: events.Resize) -> None:
        self.stale = True

    def restyle(self) -> None:
        super().restyle()
        self._drawn = self._seen = None

    def copied(self, view: View) -> tuple[str, str]:
        rows = [f"{e.number}\t{e.value:.6f}\t{e.verdict}" for e in view.state.experiments if e.value is not None]
        return "\n".join(rows), "every measured value"

    def _await(self, said: str) -> None:
        self._drawn = None
        self._turn_to("")
        self.query_one("#awaited", Words).say(Text(said, look.FAINT), layout=True)
        self.subtitle("")

    def _turn_to(self, shown: Literal["", "drawn", "told"]) -> None:
        self.set_class(shown == "drawn", "-drawn")
        self.set_class(shown == "told", "-told")

    def _begin(self, drawing: object, count: int = 1) -> Sequence[Plot] | None:
        """So many cleared plots; None where `drawing` is what they show already, or they are not there yet."""
        if not self._plots:
            self._seen = None
            if not self._loading:
                self._loading = True
                self.call_after_refresh(self.run_worker, self._load)
            return None
        if drawing == self._drawn:
            return None
        self._drawn = drawing
        self._turn_to("drawn")
        for at, plot in enumerate(self._plots):
            plot.display = at < count
            plot.clear()
        return self._plots[:count]

    def _show_history(self, view: View) -> None:
        state = view.state
        better = "lower" if state.direction == "minimize" else "higher"
        history = curves.history(state, view.tally.luck)
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
        plots = self._begin((history, self.content_size))
        if plots is None:
            return
        (plot,) = plots
        plot.set_xlimits(0.0, float(history.last))
        plot.set_ylimits(history.low, history.high)
        if history.band:
            xs, ys = [x for x, _ in history.band], [y for _, y in history.band]
            plot.scatter(xs, ys, marker="·", marker_style=look.FAINT)
        plot.line([(0.0, history.baseline), (float(history.last), history.baseline)], look.LINE)
        plot.line(history.stairs, look.GREEN)
        for verdict, mark in MARKS.items():
            if points := history.points[verdict]:
                plot.scatter([x for x, _ in points], [y for _, y in points], marker=mark, marker_style=colour(verdict))
        self.subtitle("● keep  • discard  × crash  ○ reject")

    def _show_run(self, view: View) -> None:
        step, best, gap = view.step, view.state.best, view.gap
        of = f" · {words.name(step.number)}" if step else ""
        said = [f"loss{of}"]
        if gap.at_time is not None:
            said.append(f"{words.ahead(gap.at_time, '')} at equal time")
            if gap.at_step is not None:
                same = (gap.at_time >= 0) == (gap.at_step >= 0)
                said[-1] += f", {abs(gap.at_step):.3f}" if same else f", {words.ahead(gap.at_step, '')}"
                said[-1] += " at step"
        self.entitle(" · ".join(said))
        over = [curves.run(view.steps, view.rival)]
        if over[0] is not None and self.content_size.width >= BOTH_AXES and over[0].axis != "step":
            over.append(curves.run(view.steps, view.rival, over_steps=True))
        runs = [run for run in over if run is not None]
        if not runs:
            self._await("the loss of the running trial will be drawn here, against the incumbent's")
            return
        plots = self._begin((runs, self.content_size), len(runs))
        if plots is None:
            return
        for plot, run in zip(plots, runs, strict=True):
            plot.set_xlimits(0.0, run.last)
            plot.set_ylimits(run.low, run.high)
            plot.line(run.rival, look.FAINT)
            plot.line(run.mine, look.BLUE)
        against = f"  grey: incumbent {words.name(best.number)}" if best and runs[0].rival else ""
        axes = ", and over ".join(run.axis for run in runs)
        self.subtitle(f"blue: this run{against}  over {axes}")

    def _show_program(self, view: View) -> None:
        state, versions = view.state, curves.program(view.state)
        self.entitle(f"program.md · keeps and gain in {words.unit(state.metric)} per version")
        if not versions:
            self._await("each version of program.md will be a line here, with what came of it; e edits it")
            return
        self._drawn = None
        self._turn_to("told")
        height, room = max(1, self.content_size.height - 1), max(4, self.content_size.width - 48)
        most = max(max(version.gain for version in versions), 1e-12)
        lines = [Text(f"{'version':<10}{'tried':>6}{'kept':>6}{'gain':>10}", look.FAINT)]
        for version in versions[-height:]:
            now = "  in force" if version.spec == state.spec else ""
            lines.append(
                Text.assemble(
                    (f"{version.spec:<10}", look.INK),
                    (f"{version.tried:>6}", look.FAINT),
                    (f"{version.kept:>6}", look.status("keep" if version.kept else "discard")),
                    (f"{version.gain:>10.4f}  ", look.INK),
                    look.bar(max(0.0, version.gain) / most, room, look.GREEN),
                    (now, look.BLUE),
                )
            )
        self.query_one(Rows).say(Text("\n").join(lines))
        self.subtitle(f"{len(versions)} versions" if len(versions) > 1 else "")


def colour(verdict: Verdict) -> str:
    return look.status(verdict).removeprefix("bold ")
