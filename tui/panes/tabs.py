"""Where one pane is shown at a time: the names of all six, and the others' news in two lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.message import Message

from tui import look, words
from tui.panes.machine import readings_in_short
from tui.panes.pane import Pane
from tui.panes.rows import Rows
from tui.view import View


class Tabs(Rows):
    DEFAULT_CSS: ClassVar[str] = "Tabs { height: 1; padding: 0 1; }"

    class Clicked(Message):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[tuple[int, int]] = []

    def show(self, panes: Sequence[Pane], current: int) -> None:
        text, self._ends = Text(), []
        for pane in panes:
            here = pane.number == current
            text.append(f" {pane.number} {pane.label} ", f"reverse {look.BLUE}" if here else look.FAINT)
            self._ends.append((text.cell_len, pane.number))
        self.say(text)

    def on_click(self, event: events.Click) -> None:
        for end, number in self._ends:
            if event.x - 1 < end:
                self.post_message(self.Clicked(number))
                return


class Summary(Rows):
    DEFAULT_CSS: ClassVar[str] = "Summary { height: 2; padding: 0 1; }"

    def show(self, view: View) -> None:
        room = max(8, self.content_size.width // 3)
        state, step = view.state, view.step
        first = Text()
        values = [e.value for e in state.experiments if e.verdict == "keep" and e.value is not None]
        if values:
            first.append(f"{words.unit(state.metric)} ", look.FAINT).append(look.spark(values, room), look.GREEN)
            first.append(f" {words.value(values[-1])}  ", look.INK)
        if step is not None and view.steps:
            losses = look.thin_out([past.loss for past in view.steps], room)
            first.append("loss ", look.FAINT).append(look.spark(losses, room), look.BLUE)
            first.append(f" {step.loss:.4f}", look.INK)
        machine = view.machine[-1] if view.machine else None
        self.say(Text("\n").join((first, readings_in_short(step, machine))))
