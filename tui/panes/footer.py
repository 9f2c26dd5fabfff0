"""The keys that work now, and above them what waits for a person. A key that cannot act is grey; pressed all the same,
it says why."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.message import Message

from loop.state import StudyState
from tui import actions, look, words
from tui.actions import ACTIONS, Action
from tui.panes.rows import Rows


class Footer(Rows):
    DEFAULT_CSS: ClassVar[str] = "Footer { height: 1; background: $panel; padding: 0 1; }"

    class Clicked(Message):
        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, Action]] = []
        """Where each key's words end, from the left."""

    def show(self, usable: Collection[str], state: StudyState) -> None:
        """`usable` names the actions that can act."""
        width = self.content_size.width
        chosen = [(action, actions.label(action, state)) for action in ACTIONS if action.rank is not None]
        ranks = {action.rank or 0 for action, _ in chosen}
        for rank in range(max(ranks), 0, -1):
            if sum(len(action.shown) + len(label) + 3 for action, label in chosen) - 2 <= width:
                break
            chosen = [(action, label) for action, label in chosen if (action.rank or 0) < rank]
        text, self._places = Text(), []
        for action, label in chosen:
            can = action.name in usable
            text.append(action.shown, f"bold {look.BLUE}" if can else look.FAINT)
            text.append(f" {label}", look.INK if can else look.FAINT)
            self._places.append((text.cell_len, action))
            text.append("  ")
        self.say(text)

    def on_click(self, event: events.Click) -> None:
        at = event.x - 1
        for end, action in self._places:
            if at < end:
                self.post_message(self.Clicked(action))
                return


class Request(Rows):
    """What waits for a person: a line, not a dialog that takes the keys away."""

    DEFAULT_CSS: ClassVar[str] = """
    Request { height: 1; padding: 0 1; display: none; background: $warning-muted; }
    Request.-asks { display: block; }
    """

    def show(self, state: StudyState, *, pointed: int | None) -> None:
        """`pointed`: the experiment that enter opens in place of what waits, where the table has the focus."""
        waiting, current = state.awaiting, state.current
        self.set_class(waiting is not None or bool(state.asked), "-asks")
        if state.asked and current:
            asks = f"! {words.name(current.number)} asks you to allow {words.one_line(state.asked)}"
            text = Text("")
            for key, does in (("a", "allow it"), ("x", "refuse it")):
                text.append(f"{key}", f"bold {look.BLUE}").append(f" {does}   ", look.INK)
            self.say(text.append(asks, f"bold {look.AMBER}"))
            return
        if waiting is None:
            return
        text = Text.assemble((f"! {words.name(waiting.number)} waits for your approval", f"bold {look.AMBER}"))
        looks = (("enter", "look at it"),) if pointed in (None, waiting.number) else ()
        for key, does in (*looks, ("a", "approve"), ("x", "reject")):
            text.append(f"   {key}", f"bold {look.BLUE}").append(f" {does}", look.INK)
        self.say(text.append(f"   {words.what(waiting)}", look.INK))
