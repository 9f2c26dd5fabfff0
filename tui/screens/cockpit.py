"""The cockpit: six panes between a header and a footer, and the keys that steer the study."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.screen import Screen

from loop import commands
from loop.commands import AnyCommand
from loop.state import Experiment
from tui import keys, look, words
from tui.panes.agent import AgentPane
from tui.panes.chart import ChartPane
from tui.panes.diff import DiffPane
from tui.panes.experiments import ExperimentsPane
from tui.panes.footer import Footer
from tui.panes.header import Header
from tui.panes.log import LogPane
from tui.panes.machine import MachinePane
from tui.panes.pane import Pane
from tui.panes.tabs import Summary, Tabs
from tui.screens import program
from tui.screens.ask import AskWhy, Tell
from tui.screens.experiment import ExperimentPage, Fetch
from tui.screens.help import Help
from tui.screens.stop import StopEngine
from tui.view import ALL, Topic, View

FRAMES = 4
"""Frames a second at most; nothing is drawn in one in which nothing changed."""


class Cockpit(Screen[None]):
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012

    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(key, f"act('{action}')", show=False)
            for key, action in (
                ("p", "pause"),
                ("s", "step"),
                ("x", "reject"),
                ("k", "keep"),
                ("m", "message"),
                ("e", "program"),
                ("v", "chart_view"),
                ("z", "zoom"),
                ("question_mark", "help"),
                ("q", "detach"),
                ("Q", "stop"),
            )
        ),
        # With priority, so that a key typed right after them goes to the pane that they went to.
        Binding("tab", "turn(1)", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", show=False, priority=True),
        *(Binding(str(number), f"pane({number})", show=False, priority=True) for number in range(1, 7)),
    ]

    class Given(Message):
        """A person's command."""

        def __init__(self, command: AnyCommand) -> None:
            super().__init__()
            self.command = command

    class Detached(Message):
        """A person closes the view."""

    def __init__(self, view: View, *, program: Path, fetch: Fetch) -> None:
        super().__init__()
        self._view = view
        self._program_path = program
        self._fetch = fetch
        self._current = 1
        """The pane that is shown where there is room for one."""

    def compose(self) -> ComposeResult:
        yield Header()
        yield Tabs()
        with Horizontal(id="upper"):
            yield AgentPane()
            yield DiffPane()
        with Horizontal(id="middle"):
            yield ChartPane()
            yield MachinePane()
        with Horizontal(id="lower"):
            yield ExperimentsPane()
            yield LogPane()
        yield Summary()
        yield Footer()

    def on_mount(self) -> None:
        self._go_to(5)
        self.set_interval(1 / FRAMES, self._draw, name="frame pump")

    def touch(self, topics: frozenset[Topic]) -> None:
        """Mark the panes that show any of `topics`; the next frame draws them, all together."""
        for pane in self._panes:
            if pane.shows & topics:
                pane.stale = True

    def draw_now(self) -> None:
        """Show everything anew: the first sight of a study should not wait for a frame."""
        self.touch(ALL)
        self._draw()

    @property
    def _panes(self) -> list[Pane]:
        return sorted(self.query(Pane), key=lambda pane: pane.number)

    @property
    def _compact(self) -> bool:
        return self.has_class("-narrow") or self.has_class("-short")

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        with self.app.batch_update():
            self.query_one(Header).show(self._view)
            for pane in self._panes:
                if pane.stale and pane.is_on_screen:
                    pane.stale = False
                    pane.show(self._view)
            if self._compact:
                self.query_one(Tabs).show(self._panes, self._current)
                self.query_one(Summary).show(self._view)
            self._show_keys()

    def _show_keys(self) -> None:
        usable = [self._refusal(key.action) is None for key in keys.KEYS]
        self.query_one(Footer).show(usable, paused=self._view.state.mode == "paused")

    def on_resize(self, event: events.Resize) -> None:
        # The panes have their new sizes only after the layout.
        self.call_after_refresh(self.draw_now)

    @on(events.DescendantFocus)
    def _follow_focus(self, event: events.DescendantFocus) -> None:
        for pane in self._panes:
            if event.widget in pane.walk_children(with_self=True):
                self._set_current(pane.number)

    def _set_current(self, number: int) -> None:
        if number == self._current and self._panes[number - 1].has_class("-current"):
            return
        self._current = number
        for pane in self._panes:
            pane.set_class(pane.number == number, "-current")
        for row in self.query(Horizontal):
            row.set_class(any(pane.number == number for pane in row.query(Pane)), "-current")
        self.touch(ALL)
        self.call_after_refresh(self._draw)

    def _go_to(self, number: int) -> None:
        self._set_current(number)
        target = self._panes[number - 1].target
        if target.is_on_screen:
            self.set_focus(target)
        else:
            # A pane that was hidden takes the focus only once it is laid out.
            self.call_after_refresh(self.set_focus, target)

    def action_pane(self, number: int) -> None:
        self._go_to(number)

    def action_turn(self, by: int) -> None:
        self._go_to((self._current - 1 + by) % 6 + 1)

    def _refusal(self, action: str) -> str | None:
        return keys.refusal(
            action,
            self._view.state,
            connected=self._view.connected,
            pointed=self.query_one(ExperimentsPane).pointed,
            compact=self._compact,
        )

    def action_act(self, action: str) -> None:
        """Do what a key stands for, or say why it cannot be done now."""
        if (reason := self._refusal(action)) is not None:
            self.notify(reason, severity="warning", markup=False)
            return
        getattr(self, f"_act_{action}")()

    @on(Footer.Clicked)
    def _clicked(self, clicked: Footer.Clicked) -> None:
        self.action_act(clicked.key.action)

    @on(Tabs.Clicked)
    def _tab_clicked(self, clicked: Tabs.Clicked) -> None:
        self._go_to(clicked.number)

    @on(ExperimentsPane.Opened)
    def _open(self, opened: ExperimentsPane.Opened) -> None:
        page = ExperimentPage(opened.number, state=lambda: self._view.state, fetch=self._fetch)
        self.app.push_screen(page)

    @on(ExperimentsPane.Pointed)
    def _pointed(self) -> None:
        self._show_keys()

    def _act_pause(self) -> None:
        paused = self._view.state.mode == "paused"
        self.post_message(self.Given(commands.Resume() if paused else commands.Pause()))

    def _act_step(self) -> None:
        self.post_message(self.Given(commands.Step()))

    def _act_reject(self) -> None:
        current = self._view.state.current
        if current is None:
            return
        number = current.number
        dialog = AskWhy(
            title=f"reject {words.name(number)}",
            effect=self._effect_of_reject(current),
            confirm="ctrl+r",
            verb="reject it",
            opened_by="x",
        )

        def rejected(why: str | None) -> None:
            if why is None:
                return
            now = self._view.state.current
            if now is None or now.number != number:
                said = f"{words.name(number)} was decided meanwhile; nothing was rejected"
                self.notify(said, severity="warning", markup=False)
                return
            self.post_message(self.Given(commands.Reject(why=why)))

        self.app.push_screen(dialog, rejected)

    def _effect_of_reject(self, current: Experiment) -> Text:
        view, best = self._view, self._view.state.best
        text = Text(f"{words.what(current)}\n\n", look.FAINT)
        measured = view.state.measuring
        if measured is not None and words.training(view.state) is not None:
            whose = "Its training" if measured is current else f"The training of {words.name(measured.number)} for it"
            spent = words.duration(words.spent(measured, view.step, view.now()))
            text.append(f"{whose} ends with every process of it; {spent} of work are lost. ", look.INK)
        elif measured is not None:
            text.append("The audit that runs for it ends. ", look.INK)
        elif current.stage == "proposing":
            text.append("The agent's turn ends. ", look.INK)
        if best is not None:
            text.append(f"The branch stays on {words.name(best.number)} ({(best.commit or '')[:7]}). ", look.INK)
        if current.commit:
            text.append(f"The commit stays at refs/{view.state.branch}/{words.name(current.number)}. ", look.INK)
        text.append("The agent is told why.", look.INK)
        return text

    def _act_keep(self) -> None:
        number = self.query_one(ExperimentsPane).pointed
        best = self._view.state.best
        if number is None or best is None:
            return
        chosen = self._view.state.experiments[number]
        effect = Text(f"{words.what(chosen)}\n\n", look.FAINT)
        effect.append(
            f"{words.one_line(self._view.state.branch)} moves from {words.name(best.number)} "
            f"({words.value(best.value)}) to {words.name(number)} ({words.value(chosen.mean)}); "
            "new proposals start from there.",
            look.INK,
        )
        dialog = AskWhy(
            title=f"keep {words.name(number)} by hand", effect=effect, confirm="ctrl+k", verb="keep it", opened_by="k"
        )

        def kept(why: str | None) -> None:
            if why is not None:
                self.post_message(self.Given(commands.Keep(why=why, number=number)))

        self.app.push_screen(dialog, kept)

    def _act_message(self) -> None:
        def told(text: str | None) -> None:
            if text:
                self.post_message(self.Given(commands.Note(text=text)))

        self.app.push_screen(Tell(), told)

    def _act_stop(self) -> None:
        current, measured = self._view.state.current, self._view.state.measuring
        under_way = current if current and current.stage in ("training", "trained") else measured
        running = words.name(under_way.number) if under_way else None

        def chosen(when: str | None) -> None:
            if when is not None:
                self.post_message(self.Given(commands.Stop(now=when == "now")))

        self.app.push_screen(StopEngine(tag=self._view.state.tag, running=running), chosen)

    def _act_program(self) -> None:
        self.run_worker(self._edit(), group="editor", exclusive=True)

    async def _edit(self) -> None:
        try:
            text = await asyncio.to_thread(program.read, self._program_path)
        except (OSError, UnicodeError) as error:
            self.notify(f"{self._program_path.name} cannot be edited here: {error}", severity="error", markup=False)
            return
        self.app.push_screen(program.ProgramEditor(self._program_path, text))

    def _act_chart_view(self) -> None:
        self.query_one(ChartPane).switch()
        self._draw()

    def _act_zoom(self) -> None:
        self.toggle_class("-zoom")
        self.touch(ALL)
        self.call_after_refresh(self._draw)

    def _act_help(self) -> None:
        self.app.push_screen(Help())

    def _act_detach(self) -> None:
        self.post_message(self.Detached())

    def _act_next_pane(self) -> None:
        self.action_turn(1)
