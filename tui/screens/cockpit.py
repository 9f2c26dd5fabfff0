"""The cockpit: six panes between a header and a footer, and the keys that steer the study."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from loop import commands
from loop.commands import AnyCommand
from loop.state import Experiment
from tui import actions, look, words
from tui.actions import ACTIONS, Given
from tui.engine import Do, Fetch
from tui.link import QUESTION
from tui.panes.agent import AgentPane
from tui.panes.chart import MODES, ChartPane
from tui.panes.diff import DiffPane
from tui.panes.experiments import ExperimentsPane
from tui.panes.footer import Footer, Request
from tui.panes.header import Header
from tui.panes.log import LogPane
from tui.panes.machine import MachinePane
from tui.panes.pane import Pane
from tui.panes.tabs import Summary, Tabs
from tui.settings import Settings
from tui.terminal import congested
from tui.view import ALL, Topic, View

FRAMES = 4
"""Frames a second at most; nothing is drawn in one in which nothing changed."""

BLURRED, FAR = 8, 2
"""While nobody looks, and on a slow line, one frame in so many is drawn."""


class Cockpit(Screen[None]):
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (180, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012
    AUTO_FOCUS = ""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            # With priority what opens a line to write on, so that what is typed right after it goes there.
            Binding(action.key, f"act('{action.name}')", show=False, priority=action.name == "find")
            for action in ACTIONS
            if action.key != "tab"
        ),
        Binding("enter", "open_waiting", show=False),
        Binding("escape", "end_find", show=False),
        # With priority, so that a key typed right after them goes to the pane that they went to.
        Binding("tab", "turn(1)", show=False, priority=True),
        Binding("shift+tab", "turn(-1)", show=False, priority=True),
        *(Binding(str(number), f"pane({number})", show=False, priority=True) for number in range(1, 7)),
    ]

    class Detached(Message):
        """A person closes the view."""

    class Arranged(Message):
        """The layout is another one, worth remembering."""

    class Themed(Message):
        """A person wants the next theme."""

    class Silenced(Message):
        """A person wants the bell on, or off."""

    class Searched(Message):
        """A person wants the command palette."""

    class Copied(Message):
        def __init__(self, text: str, what: str) -> None:
            super().__init__()
            self.text, self.what = text, what

    def __init__(self, view: View, *, program: Path, fetch: Fetch, do: Do, settings: Settings) -> None:
        super().__init__()
        self._view = view
        self._program_path = program
        self._fetch, self._do = fetch, do
        self._settings = settings
        self._current = 1
        """The pane that is shown where there is room for one."""
        self._frame = 0
        self._curtain = contextlib.ExitStack()
        """Closed with the first drawing: until then a paint would show empty panes, and cost as much."""
        self._panes: list[Pane] = [AgentPane(), DiffPane(), ChartPane(), MachinePane(), ExperimentsPane(), LogPane()]
        """By number, from 1."""

    def compose(self) -> ComposeResult:
        agent, diff, chart, machine, experiments, log = self._panes
        yield Header()
        yield Tabs()
        with Container(id="top", classes="row"):
            with Container(id="upper", classes="row"):
                yield agent
                yield diff
            with Container(id="middle", classes="row"):
                yield chart
                yield machine
        with Container(id="lower", classes="row"):
            yield experiments
            yield log
        yield Summary()
        yield Request()
        yield Footer()

    def on_mount(self) -> None:
        self._curtain.enter_context(self.app.batch_update())
        settings, table, chart = self._settings, self.query_one(ExperimentsPane), self.query_one(ChartPane)
        self.set_class(settings.zoomed, "-zoom")
        chart.mode = next((mode for mode in MODES if mode == settings.chart), "history")
        table.sort_by(settings.sort, reverse=settings.reverse)
        self._go_to(settings.pane if 1 <= settings.pane <= 6 else 5)
        self.set_interval(1 / FRAMES, self._pump, name="frame pump")

    def arrangement(self) -> dict[str, object]:
        """The fields of `Settings` that stand for the layout."""
        table = self.query_one(ExperimentsPane)
        return {
            "pane": self._current,
            "zoomed": self.has_class("-zoom"),
            "chart": self.query_one(ChartPane).mode,
            "sort": table.sort,
            "reverse": table.reverse,
        }

    def touch(self, topics: frozenset[Topic]) -> None:
        """Mark the panes that show any of `topics`; the next frame draws them, all together."""
        for pane in self._panes:
            if pane.shows & topics:
                pane.stale = True

    def draw_now(self) -> None:
        """Show everything anew, without waiting for a frame."""
        self.touch(ALL)
        self._draw()
        self._on_timer_update()  # No public name paints at once; Textual's own timer comes up to 17 ms later.

    def restyle(self) -> None:
        """Draw everything anew, in the colours that are worn now."""
        for pane in self._panes:
            pane.restyle()
        for part in (Header, Tabs, Summary, Request, Footer):
            self.query_one(part).redraw()
        self._draw()

    @property
    def _compact(self) -> bool:
        return self.has_class("-narrow") or self.has_class("-short")

    def _pump(self) -> None:
        self._frame += 1
        every = BLURRED if not self.app.app_focus else FAR if self._view.link.slow else 1
        if self._frame % every or congested(self.app._driver):
            return
        moved = any(pane.stale and pane.is_on_screen for pane in self._panes)
        self._draw()
        # Along with what is written anyway: on a screen that stands still nothing is.
        if moved and self.app._driver is not None and self._view.link.asks(time.monotonic()):
            self.app._driver.write(QUESTION)

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
        self._curtain.close()

    def _show_keys(self) -> None:
        usable = {action.name for action in ACTIONS if self.refusal(action.name) is None}
        self.query_one(Footer).show(usable, self._view.state)
        elsewhere = self._current != ExperimentsPane.number
        pointed = None if elsewhere else self.query_one(ExperimentsPane).pointed
        self.query_one(Request).show(self._view.state, pointed=pointed)

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
        for row in self.query(".row"):
            row.set_class(any(pane.number == number for pane in row.query(Pane)), "-current")
        if self._compact or self.has_class("-zoom"):
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

    @property
    def current(self) -> Pane:
        """The pane in focus."""
        return self._panes[self._current - 1]

    def refusal(self, name: str, number: int | None = None) -> str | None:
        """Why an action, on experiment `number` where it is about one, can do nothing now; None where it can."""
        if name == "keep" and number is None:
            number = self.query_one(ExperimentsPane).pointed
        return actions.refusal(
            name, self._view.state, connected=self._view.connected, number=number, compact=self._compact
        )

    @property
    def waits(self) -> bool:
        """Whether a proposal waits for approval, or an agent for a permission."""
        return self._view.state.awaiting is not None or bool(self._view.state.asked)

    def label(self, action: actions.Action) -> str:
        return actions.label(action, self._view.state)

    def action_act(self, name: str) -> None:
        """Do what a key stands for, or say why it cannot be done now."""
        if (reason := self.refusal(name)) is not None:
            self.notify(reason, severity="warning", markup=False)
            return
        getattr(self, f"_act_{name}")()

    @on(Footer.Clicked)
    def _clicked(self, clicked: Footer.Clicked) -> None:
        self.action_act(clicked.action.name)

    @on(Tabs.Clicked)
    def _tab_clicked(self, clicked: Tabs.Clicked) -> None:
        self._go_to(clicked.number)

    @on(ExperimentsPane.Opened)
    def _open(self, opened: ExperimentsPane.Opened) -> None:
        self.open(opened.number)

    def open(self, number: int) -> None:
        """Show an experiment's own page."""
        from tui.screens.experiment import ExperimentPage

        page = ExperimentPage(number, view=self._view, fetch=self._fetch, do=self._do, reject=self._act_reject)
        self.app.push_screen(page)

    def action_open_waiting(self) -> None:
        if (waiting := self._view.state.awaiting) is not None:
            self.open(waiting.number)

    def action_end_find(self) -> None:
        """End the search of the pane in focus."""
        self.current.find("")

    @on(ExperimentsPane.Pointed)
    def _pointed(self) -> None:
        self._show_keys()

    @on(ExperimentsPane.Arranged)
    def _arranged(self) -> None:
        self.post_message(self.Arranged())

    def _give(self, command: AnyCommand) -> None:
        self.post_message(Given(command))

    def _act_pause(self) -> None:
        paused = self._view.state.mode == "paused"
        self._give(commands.Resume() if paused else commands.Pause())

    def _act_step(self) -> None:
        self._give(commands.Step())

    def _act_approve(self) -> None:
        waiting = self._view.state.awaiting
        if asked := self._view.state.asked:
            self._give(commands.Permit(allow=True, what=asked))
        elif waiting is None:
            self._act_gate()
        else:
            self._give(commands.Approve(number=waiting.number))

    def _act_gate(self) -> None:
        self._give(commands.Gate(on=not self._view.state.approving))

    def _act_reject(self) -> None:
        current = self._view.state.current
        if asked := self._view.state.asked:
            self._give(commands.Permit(allow=False, what=asked))
            return
        if current is None:
            return
        title = f"reject {words.name(current.number)}"
        self._ask_why("reject", current.number, commands.Reject, "ctrl+r", title, self._effect_of_reject(current))

    def _ask_why(
        self,
        name: str,
        number: int,
        command: type[commands.Reject | commands.Keep | commands.Undo],
        confirm: str,
        title: str,
        effect: Text,
    ) -> None:
        """Ask for the reason of an action on experiment `number`, and give the `command` with it.

        confirm: the key that does so; effect: what it would come to.
        """
        from tui.screens.ask import AskWhy

        dialog = AskWhy(
            title=title,
            effect=effect,
            confirm=confirm,
            verb=f"{name} it",
            opened_by=actions.BY_NAME[name].key,
            refusal=lambda: self.refusal(name, number),
        )

        def given(why: str | None) -> None:
            if why is not None:
                self._give(command(why=why, number=number))

        self.app.push_screen(dialog, given)

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
        self._ask_why("keep", number, commands.Keep, "ctrl+k", f"keep {words.name(number)} by hand", effect)

    def _act_undo(self) -> None:
        state = self._view.state
        before = state.before
        if before is None:
            return
        number, decided = before.number, state.experiments[before.number]
        effect = Text(f"{words.what(decided)}\n\n", look.FAINT)
        effect.append(f"{words.name(number)} is no {decided.verdict} any more. ", look.INK)
        if decided.verdict == "keep" and state.incumbent_before is not None:
            back = state.experiments[state.incumbent_before]
            effect.append(
                f"{words.one_line(state.branch)} goes back to {words.name(back.number)} "
                f"({(back.commit or '')[:7]}, {words.value(back.value)}); the commit stays at "
                f"refs/{words.one_line(state.branch)}/{words.name(number)}. ",
                look.INK,
            )
        else:
            effect.append("It is run again. ", look.INK)
        effect.append("The journal keeps both.", look.INK)
        self._ask_why("undo", number, commands.Undo, "ctrl+u", f"undo the verdict on {words.name(number)}", effect)

    def _act_breakpoints(self) -> None:
        from tui.screens.breakpoints import Breakpoints

        self.app.push_screen(Breakpoints(state=lambda: self._view.state, do=self._do))

    def _act_message(self) -> None:
        from tui.screens.ask import Tell

        def told(text: str | None) -> None:
            if text:
                self._give(commands.Note(text=text))

        self.app.push_screen(Tell(), told)

    def _act_stop(self) -> None:
        from tui.screens.stop import StopEngine

        def running() -> str | None:
            current, measured = self._view.state.current, self._view.state.measuring
            under_way = current if current and current.stage in ("training", "trained") else measured
            return words.name(under_way.number) if under_way else None

        def chosen(when: str | None) -> None:
            if when is not None:
                self._give(commands.Stop(now=when == "now"))

        self.app.push_screen(
            StopEngine(tag=self._view.state.tag, running=running, refusal=lambda: self.refusal("stop")), chosen
        )

    def _act_program(self) -> None:
        self.run_worker(self._edit(), group="editor", exclusive=True)

    async def _edit(self) -> None:
        from tui.screens import program

        path = self._program_path
        try:
            text = await asyncio.to_thread(program.read, path)
        except (OSError, UnicodeError) as error:
            self.notify(f"{path.name} cannot be edited here: {error}", severity="error", markup=False)
            return
        self.app.push_screen(program.ProgramEditor(path, text, version=self._view.state.spec, fetch=self._fetch))

    def _act_chart_view(self) -> None:
        self.query_one(ChartPane).switch()
        self._draw()
        self.post_message(self.Arranged())

    def _act_zoom(self) -> None:
        self.toggle_class("-zoom")
        self.touch(ALL)
        self.call_after_refresh(self._draw)
        self.post_message(self.Arranged())

    def _act_find(self) -> None:
        if isinstance(self.focused, Input):
            raise SkipAction  # Textual leaves other keys that have priority to a line that is written on, and not this.
        if not self.current.finds:
            self._set_current(5)  # Chart and machine have nothing to look for; what one filters is the table.
        self.current.ask_what_to_find()

    def _act_next(self) -> None:
        self._step_to(1)

    def _act_before(self) -> None:
        self._step_to(-1)

    def _step_to(self, direction: int) -> None:
        pane = self.current
        # The hunks can be gone through from wherever nothing else is stepped through.
        if not pane.needle and isinstance(pane, ExperimentsPane | ChartPane | MachinePane):
            pane = self._panes[1]
        if said := pane.step_to(direction):
            self.notify(said, severity="warning", markup=False)

    def _act_copy(self) -> None:
        text, what = self.current.copied(self._view)
        if text.strip():
            self.post_message(self.Copied(text, what))
        else:
            self.notify(f"{what}: there is nothing to copy yet", severity="warning", markup=False)

    def _act_theme(self) -> None:
        self.post_message(self.Themed())

    def _act_bell(self) -> None:
        self.post_message(self.Silenced())

    def _act_palette(self) -> None:
        self.post_message(self.Searched())

    def _act_help(self) -> None:
        from tui.screens.help import Help

        self.app.push_screen(Help())

    def _act_detach(self) -> None:
        self.post_message(self.Detached())

    def _act_next_pane(self) -> None:
        self.action_turn(1)
