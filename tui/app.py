"""The cockpit's application: one connection to the engine, folded into one view, shown by one screen."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import App
from textual.binding import Binding, BindingType

from loop import events as ev
from loop.commands import AnyCommand
from loop.events import DraftDiff
from loop.remote.client import Client, EngineGone, OtherVersion, Update
from loop.remote.wire import Artifact, Recorded, Snapshot
from tui import words
from tui.look import THEME
from tui.screens.cockpit import Cockpit
from tui.view import ALL, Line, View, steps_of

RECONNECT = 2.0
"""Seconds between two looks for an engine where there is none."""

VANISHED = "the engine is gone without a word; `labtop run` starts another, which goes on from here"


class LabtopApp(App[str]):
    """Shows a study and takes a person's commands to its engine. Its result is the sentence to part with.

    Closing it, in whatever way, ends nothing but the view.
    """

    TITLE = "labtop"
    CSS_PATH = "labtop.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q,ctrl+c", "detach", show=False),
    ]

    def __init__(self, *, socket: Path, root: Path, program: Path) -> None:
        """
        Args:
            socket: where the engine listens.
            root: the study's repository.
            program: the research spec, program.md; relative to `root`, or absolute.
        """
        super().__init__()
        self.view = View()
        self._socket = socket
        self._client: Client | None = None
        self._cockpit = Cockpit(self.view, program=root / program, fetch=self.fetch)

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = THEME.name
        self.push_screen(self._cockpit)
        self.run_worker(self._watch(), name="watching the engine", exit_on_error=True)
        if threading.current_thread() is threading.main_thread():
            # A terminal that hangs up ends the view at once: there is nobody to show anything to. Left ignored, as
            # under nohup, it would spin on a dead terminal.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self.action_detach)

    @on(Cockpit.Detached)
    def action_detach(self) -> None:
        self.exit(words.farewell(self.view.state, connected=self.view.connected))

    @on(Cockpit.Given)
    def _given(self, given: Cockpit.Given) -> None:
        self.run_worker(self._do(given.command), group="commands")

    async def fetch(self, number: int, artifact: Artifact) -> str | None:
        """An experiment's file, "" where there is none yet, None where no engine answers."""
        if self._client is None:
            return None
        with contextlib.suppress(EngineGone):
            return await self._client.fetch(number, artifact)
        return None

    async def _do(self, command: AnyCommand) -> None:
        try:
            if self._client is None:
                raise EngineGone("no engine answers")
            reply = await self._client.do(command)
        except EngineGone as gone:
            self.notify(str(gone), severity="error", markup=False)
            return
        self.notify(words.one_line(reply.text), severity="information" if reply.ok else "warning", markup=False)

    async def _watch(self) -> None:
        """Follow the engine; where it goes away, keep what is shown and look for it, or for the next one."""
        while True:
            self.view.lose(await self._follow())
            self._cockpit.touch(ALL)
            await asyncio.sleep(RECONNECT)

    async def _follow(self) -> str:
        """Take what the engine says until it does not any more, and tell why."""
        try:
            client = self._client = await Client.connect(self._socket)
            try:
                async for update in client.updates():
                    self._cockpit.touch(self.view.take(update, client.state))
                    await self._complete(update)
                    self._announce(update)
            finally:
                self._client = None
                await client.close()
        except OtherVersion as other:
            return str(other)
        except EngineGone as gone:
            return f"{gone}; `labtop run` starts one"
        return VANISHED

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
            for line in (await self.fetch(runs, "log") or "").splitlines():
                if said := words.clean(line).rstrip():
                    view.log.append(Line("output", said))
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
