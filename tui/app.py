"""The cockpit's application: one connection to the engine, folded into one view, shown by one screen."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.theme import Theme

from loop import events as ev
from loop.commands import AnyCommand, Reply
from loop.events import DraftDiff
from loop.remote.client import Client, EngineGone, OtherVersion, Update
from loop.remote.wire import Artifact, Recorded, Snapshot
from loop.trials.output import OutputParser
from tui import attention, look, settings, terminal, words
from tui.actions import Given
from tui.screens.cockpit import Cockpit
from tui.view import ALL, Line, View, steps_of

if TYPE_CHECKING:
    from textual.command import Provider

RECONNECT = 2.0
"""Seconds between two looks for an engine where there is none."""

BELL_EVERY = 1.0
"""Seconds between two rings of the bell at least."""

VANISHED = "the engine is gone without a word; `labtop run` starts another, which goes on from here"


def _spare() -> None:
    """Let the garbage collector leave out what stays: a long study would be walked through again and again."""
    gc.freeze()
    gc.enable()


def _actions() -> type[Provider]:
    from tui.palette import Actions

    return Actions


class LabtopApp(App[str]):
    """Shows a study and takes a person's commands to its engine. Its result is the sentence to part with.

    Closing it, in whatever way, ends nothing but the view.
    """

    TITLE = "labtop"
    CSS_PATH = "labtop.tcss"
    COMMANDS: ClassVar = App.COMMANDS | {_actions}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q,ctrl+c", "detach", show=False),
    ]

    def __init__(self, *, socket: Path, root: Path, program: Path, ascii_only: bool = False) -> None:
        """
        Args:
            socket: where the engine listens.
            root: the study's repository.
            program: the research spec, program.md; relative to `root`, or absolute.
            ascii_only: draw with ASCII alone.
        """
        super().__init__()
        if ascii_only:
            self._filters.append(look.Ascii())
        self.view = View()
        self._settings, self._complaint = settings.load()
        self._socket = socket
        self._client: Client | None = None
        self._rang = 0.0
        self._settled = False
        """Whether a theme was worn already: the next one is a person's choice."""
        self._cockpit = Cockpit(
            self.view, program=root / program, fetch=self.fetch, do=self.do, settings=self._settings
        )
        self.register_theme(look.DARK)
        self.register_theme(look.LIGHT)
        theme = self._settings.theme if self._settings.theme in self.available_themes else look.DARK.name
        if theme in (look.DARK.name, look.LIGHT.name) and self.console.color_system == "standard":
            theme = "ansi-dark"  # Of sixteen colours the terminal's own say more than the nearest to others.
        self.theme = theme

    def get_default_screen(self) -> Cockpit:
        return self._cockpit

    def on_mount(self) -> None:
        self._wear(self.current_theme)
        self.theme_changed_signal.subscribe(self, self._wear)
        self.run_worker(self._watch(), name="watching the engine", exit_on_error=True)
        if self._complaint:
            self.call_later(self.notify, self._complaint, severity="warning", markup=False)
        if threading.current_thread() is threading.main_thread():
            # A terminal that hangs up ends the view at once: there is nobody to show anything to. Left ignored, as
            # under nohup, it would spin on a dead terminal.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self.action_detach)

    def _wear(self, theme: Theme) -> None:
        look.wear(self.get_css_variables())
        self.console.push_theme(look.markdown())
        if self._cockpit.is_mounted:
            self._cockpit.restyle()
        if self._settled:
            self._remember(theme=theme.name)
        self._settled = True

    def notify(self, message: str, **how: Any) -> None:
        """Tell something in the corner, in place of what was told there before: a pile of it would cover the study."""
        self.clear_notifications()
        super().notify(message, **how)

    def _remember(self, **changed: object) -> None:
        """Keep what a person has set. A file that another version wrote is left to it."""
        now = settings.changed(self._settings, **changed)
        if now != self._settings:
            self._settings = now
            if not self._complaint:
                settings.save(now)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        yield SystemCommand("themes", "every theme there is, to choose from", self.action_change_theme)

    def action_command_palette(self) -> None:
        from tui.palette import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette(placeholder="what do you want to do?", id="--command-palette"))

    @on(Cockpit.Searched)
    def _search(self) -> None:
        self.action_command_palette()

    @on(Cockpit.Themed)
    def _next_theme(self) -> None:
        self.theme = look.LIGHT.name if self.theme == look.DARK.name else look.DARK.name
        self.notify(f"theme {self.theme}; `:` themes has all of them", markup=False)

    @on(Cockpit.Arranged)
    def _arranged(self) -> None:
        self._remember(**self._cockpit.arrangement())

    @on(Cockpit.Silenced)
    def _toggle_bell(self) -> None:
        self._remember(bell=not self._settings.bell)
        self.notify(f"the bell is {'on' if self._settings.bell else 'off'}", markup=False)

    @on(Cockpit.Copied)
    def _copy(self, copied: Cockpit.Copied) -> None:
        sequence, whole = terminal.clipboard(copied.text, os.environ)
        self._clipboard = copied.text
        if self._driver is not None:
            self._driver.write(sequence)
        cut = "" if whole else f", its first {terminal.COPIED_AT_MOST:,} bytes"
        said = f"copied {copied.what}{cut}: {len(copied.text):,} characters, as far as the terminal takes them (OSC 52)"
        self.notify(said, markup=False)

    @on(Cockpit.Detached)
    def action_detach(self) -> None:
        self._remember(**self._cockpit.arrangement())
        said = words.farewell(self.view.state, connected=self.view.connected)
        # What the terminal answers after the end would stand on the shell's line as if it had been typed.
        asyncio.get_running_loop().call_later(self.view.link.owed(time.monotonic()), self.exit, said)

    @on(Given)
    def _given(self, given: Given) -> None:
        self.run_worker(self._tell(given.command), group="commands")

    async def _tell(self, command: AnyCommand) -> None:
        reply = await self.do(command)
        self.notify(words.one_line(reply.text), severity="information" if reply.ok else "warning", markup=False)

    async def do(self, command: AnyCommand) -> Reply:
        """Have the engine carry a command out. Where none answers, the reply says that."""
        try:
            if self._client is None:
                raise EngineGone("no engine answers")
            return await self._client.do(command)
        except EngineGone as gone:
            return Reply(ok=False, text=str(gone))

    async def fetch(self, number: int, artifact: Artifact, *, trial: int | None = None) -> str | None:
        """An experiment's file, "" where there is none yet, None where no engine answers."""
        if self._client is None:
            return None
        with contextlib.suppress(EngineGone):
            return await self._client.fetch(number, artifact, trial=trial)
        return None

    async def _watch(self) -> None:
        """Follow the engine; where it goes away, keep what is shown and look for it, or for the next one."""
        while True:
            self.view.lose(await self._follow())
            gc.enable()
            self._cockpit.touch(ALL)
            await asyncio.sleep(RECONNECT)

    async def _follow(self) -> str:
        """Take what the engine says until it does not any more, and tell why."""
        try:
            client = self._client = await Client.connect(self._socket)
            try:
                async for update in client.updates():
                    self._cockpit.touch(self.view.take(update, client.state))
                    if isinstance(update, Snapshot):
                        self._cockpit.draw_now()  # The first sight of a study does not wait for a frame.
                        _spare()
                    await self._complete(update)
                    self._announce(update)
                    self._call(update)
            finally:
                self._client = None
                await client.close()
        except OtherVersion as other:
            return str(other)
        except EngineGone as gone:
            return f"{gone}; `labtop run` starts one"
        return VANISHED

    def _call(self, update: Update) -> None:
        """Ring for a person who looks elsewhere, where there is something to look at."""
        reason = attention.wanted(update, self.view.state) if isinstance(update, Recorded) else None
        if reason is None or self.app_focus:
            return
        if self._driver is not None:
            self._driver.write(terminal.title(f"labtop: {reason}"))
        if self._settings.bell and time.monotonic() - self._rang >= BELL_EVERY:
            self._rang = time.monotonic()
            self.bell()

    @on(events.CursorPosition)
    def _answered(self) -> None:
        self.view.link.answered(time.monotonic())

    @on(events.AppFocus)
    def _looked_at(self) -> None:
        if self._driver is not None:
            self._driver.write(terminal.title(self.TITLE or ""))
        self._cockpit.draw_now()

    async def _complete(self, update: Update) -> None:
        """Fetch what the stream does not bring: an older experiment's words and curve, the incumbent's curve."""
        match update:
            case Snapshot():
                await self._fill_gaps()
                await self._meet_rival()
            case Recorded(record=ev.Record(event=ev.Decided(verdict="keep"))):
                await self._meet_rival()
            case Recorded(record=ev.Record(event=ev.TrialFinished(number=number))) if (
                number == self.view.state.incumbent
            ):
                await self._meet_rival()

    async def _fill_gaps(self) -> None:
        view, shown = self.view, self.view.shown
        if shown is None:
            return
        number, runs = shown.number, (view.state.measuring or shown).number
        if view.diff is None and (diff := await self.fetch(number, "diff")):
            view.diff = DraftDiff(number=number, diff=diff)
        if not view.words and (said := await self.fetch(number, "reasoning")):
            view.words.append(Line("turn", words.name(number)))
            for line in said.splitlines():
                view.words.append(Line("text", line))
        if not view.steps:
            view.steps = steps_of(await self.fetch(runs, "metrics") or "")
        if not view.log:
            printed, _ = OutputParser().feed((await self.fetch(runs, "log") or "").encode(), final=True)
            for line in printed:  # As in the stream: what tells of a step is for the curve.
                view.log.append(Line("output", line))
        self._cockpit.touch(ALL)

    async def _meet_rival(self) -> None:
        best, trial = self.view.state.best, words.training(self.view.state)
        if best is not None and (trial is None or trial.number != best.number):  # It is no rival of its own.
            self.view.rival = steps_of(await self.fetch(best.number, "metrics") or "")
            self._cockpit.touch(frozenset(("steps",)))

    def _announce(self, update: Update) -> None:
        match update:
            case Recorded(record=ev.Record(event=ev.Warned(text=text))):
                self.notify(words.one_line(text), severity="warning", markup=False)
            case Recorded(record=ev.Record(event=ev.SpecChanged(version=version))) if version > 1:
                self.notify(f"program.md version {version}: the agent reads it in its next briefing", markup=False)
