"""The keys that work now. One that cannot act is grey; pressed all the same, it says why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.message import Message

from tui import look
from tui.keys import KEYS, Key
from tui.panes.pane import Words


class Footer(Words):
    DEFAULT_CSS: ClassVar[str] = "Footer { height: 1; background: $panel; padding: 0 1; text-wrap: nowrap; }"

    class Clicked(Message):
        def __init__(self, key: Key) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__()
        self._places: list[tuple[int, Key]] = []
        """Where each key's words end, from the left."""

    def show(self, usable: Sequence[bool], *, paused: bool) -> None:
        """`usable` tells for each of `KEYS` whether it can act."""
        width = self.content_size.width
        chosen = [(key, can) for key, can in zip(KEYS, usable, strict=True)]
        for rank in range(max(key.rank for key in KEYS), 0, -1):
            if sum(len(key.key) + len(key.label) + 3 for key, _ in chosen) - 2 <= width:
                break
            chosen = [(key, can) for key, can in chosen if key.rank < rank]
        text, self._places = Text(), []
        for key, can in chosen:
            label = "resume" if key.action == "pause" and paused else key.label
            text.append(key.key, f"bold {look.BLUE}" if can else look.FAINT)
            text.append(f" {label}", look.INK if can else look.FAINT)
            self._places.append((text.cell_len, key))
            text.append("  ")
        self.say(text)

    def on_click(self, event: events.Click) -> None:
        at = event.x - 1
        for end, key in self._places:
            if at < end:
                self.post_message(self.Clicked(key))
                return
