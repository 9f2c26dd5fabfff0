"""The dialog that ends the engine: it asks when, and for the study's tag."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import Input

from tui import look
from tui.panes.pane import Words
from tui.screens.ask import Dialog, key_line


class StopEngine(Dialog):
    """Gives "now" or "after", or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,down", "other", show=False, priority=True),
    ]

    def __init__(self, *, tag: str, running: Callable[[], str | None], refusal: Callable[[], str | None]) -> None:
        """`running`: the experiment that is trained, audited or confirmed, in words."""
        self._tag, self._what_runs = tag, running
        self._under_way, self._now = running(), False
        super().__init__(
            title="stop the engine",
            effect=self._effect_now(),
            placeholder=f"type the study's tag to confirm: {tag}",
            opened_by="Q",
            grave=True,
            refusal=refusal,
        )

    def holds(self) -> bool:
        if (running := self._what_runs()) != self._under_way:
            # What was chosen was meant for the one before.
            self._under_way, self._now = running, False
            self.query_one("#effect", Words).say(self._effect_now(), layout=True)
            self.hint(self.keys())
            return False
        return super().holds()

    def keys(self) -> Text:
        choose = (("up/down", "choose when"),) if self._under_way else ()
        return key_line(("enter", "stop, with the tag typed"), *choose, ("escape", "go back"))

    def action_other(self) -> None:
        if self._under_way:
            self._now = not self._now
            self.query_one("#effect", Words).say(self._effect_now(), layout=True)

    @on(Input.Submitted)
    def _stop(self) -> None:
        if not self.holds():
            return
        if self.written == self._tag:
            self.dismiss("now" if self._now else "after")
        else:
            self.hint(Text(f"that is not the tag, which is {self._tag}  ", look.AMBER).append_text(self.keys()))

    def _effect_now(self) -> Text:
        if self._under_way is None:
            return Text("The engine ends. Nothing is lost: another engine goes on from here.", look.INK)
        text = Text()
        for chosen, said in (
            (not self._now, f"after {self._under_way}: it is measured to its end, and nothing is lost"),
            (self._now, f"now: what runs for {self._under_way} ends, and the next engine runs it again"),
        ):
            text.append("\n" if text else "").append("▸ " if chosen else "  ", look.BLUE)
            text.append(said, f"bold {look.INK}" if chosen else look.FAINT)
        return text
