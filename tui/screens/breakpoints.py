"""The conditions at which the study pauses: a list, and a line to write another one on."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Input

from loop import commands
from loop.commands import AnyCommand
from loop.state import StudyState
from tui import look, words
from tui.engine import Do
from tui.panes.pane import Words
from tui.screens.ask import Dialog, key_line

EXAMPLES = '"touches LAYERS", "crash", "gain < noise", "peak_vram_mb > 24000"'


class Breakpoints(Dialog):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "choose(-1)", show=False, priority=True),
        Binding("down", "choose(1)", show=False, priority=True),
        Binding("ctrl+d", "forget", show=False, priority=True),
    ]

    def __init__(self, *, state: Callable[[], StudyState], do: Do) -> None:
        self._state, self._do = state, do
        self._at = 0
        super().__init__(
            title="breakpoints: the study pauses when one of them holds",
            effect=self._listed(),
            placeholder=f"another one, such as {EXAMPLES}",
            opened_by="b",
            grave=False,
        )

    def keys(self) -> Text:
        forget = (("up/down", "choose"), ("ctrl+d", "forget it")) if self._state().breakpoints else ()
        return key_line(("enter", "add what is written"), *forget, ("escape", "back"))

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(0.5, self._tell)

    def _listed(self) -> Text:
        conditions = self._state().breakpoints
        if not conditions:
            return Text(f"there is none yet. What can be said: {EXAMPLES}", look.FAINT)
        self._at = min(self._at, len(conditions) - 1)
        return Text("\n").join(
            Text.assemble(("▸ " if at == self._at else "  ", look.BLUE), (words.one_line(condition), look.INK))
            for at, condition in enumerate(conditions)
        )

    def _tell(self) -> None:
        self.query_one("#effect", Words).say(self._listed(), layout=True)

    def action_choose(self, by: int) -> None:
        self._at = max(0, self._at + by)
        self._tell()

    def action_forget(self) -> None:
        conditions = self._state().breakpoints
        if conditions:
            self.run_worker(self._ask(commands.Unbreak(condition=conditions[min(self._at, len(conditions) - 1)])))

    @on(Input.Submitted)
    def _add(self) -> None:
        if self.written:
            self.run_worker(self._ask(commands.Break(condition=self.written)))

    async def _ask(self, command: AnyCommand) -> None:
        reply = await self._do(command)
        if reply.ok and isinstance(command, commands.Break):
            self.query_one(Input).value = ""
        said = Text(words.one_line(reply.text), look.GREEN if reply.ok else look.AMBER)
        self.hint(said.append("\n").append_text(self.keys()))
        self._tell()
