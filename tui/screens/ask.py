"""A dialog that states an effect and asks for a few words. Enter alone never confirms what cannot be taken back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui import look
from tui.panes.pane import Words

DEAF = 0.5
"""Seconds in which a second press of the key that opened the dialog counts as a slip."""
LOOK_AGAIN = 0.5
"""Seconds between two looks at whether what the dialog states still holds."""


class Answer(Input):
    """A line to write on that does not hear `slip` for its first moment: a key pressed twice is one press."""

    def __init__(self, *, placeholder: str, slip: str) -> None:
        super().__init__(placeholder=placeholder)
        self._slip = slip
        self._born = time.monotonic()

    def on_key(self, event: events.Key) -> None:
        if event.character == self._slip and time.monotonic() - self._born < DEAF:
            event.prevent_default().stop()


class Dialog(ModalScreen[str | None]):
    """Title, effect, one line to write on, and what the keys do."""

    DEFAULT_CSS = """
    Dialog { align: center middle; background: $background 60%; }
    Dialog > Vertical {
        width: 76; max-width: 90%; height: auto; padding: 1 2;
        background: $panel; border: round $primary; border-title-color: $primary;
    }
    Dialog.-grave > Vertical { border: round $warning; border-title-color: $warning; }
    Dialog Words { margin-bottom: 1; }
    Dialog Input, Dialog Input:focus { border: tall $panel-lighten-2; background: $background; margin-bottom: 1; }
    Dialog #hint { margin: 0; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", show=False, priority=True)]

    def __init__(
        self,
        *,
        title: str,
        effect: Text,
        placeholder: str,
        opened_by: str,
        grave: bool,
        refusal: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`refusal`: why it can do nothing, once the study has moved on, or while the engine is away."""
        super().__init__(classes="-grave" if grave else "")
        self._title, self._effect, self._placeholder = title, effect, placeholder
        self._opened_by, self._refusal, self._refused = opened_by, refusal, False

    def compose(self) -> ComposeResult:
        with Vertical() as box:
            box.border_title = Text(self._title)
            yield Words(id="effect")
            yield Answer(placeholder=self._placeholder, slip=self._opened_by)
            yield Words(id="hint")

    def on_mount(self) -> None:
        self.query_one("#effect", Words).say(self._effect, layout=True)
        self.hint(self.keys())
        self.app.clear_notifications()  # What was told before would lie over it.
        self.set_interval(LOOK_AGAIN, self.holds)

    def holds(self) -> bool:
        """Whether what it states still holds; where it does not, that is told."""
        if why := self._refusal():
            self.hint(Text(f"{why}  ", look.AMBER).append_text(key_line(("escape", "go back"))))
        elif self._refused:
            self.hint(self.keys())
        self._refused = why is not None
        return not self._refused

    @property
    def written(self) -> str:
        return " ".join(self.query_one(Input).value.split())

    def keys(self) -> Text:
        """What the keys do, as the dialog's last line."""
        raise NotImplementedError

    def hint(self, words: Text) -> None:
        self.query_one("#hint", Words).say(words, layout=True)

    def action_leave(self) -> None:
        self.dismiss(None)


def key_line(*pairs: tuple[str, str]) -> Text:
    text = Text()
    for key, label in pairs:
        text.append(key, f"bold {look.BLUE}").append(f" {label}   ", look.FAINT)
    return text


class AskWhy(Dialog):
    """Gives the reason, or None. Confirmed by `confirm`, a key of its own; Enter only says so."""

    def __init__(
        self,
        *,
        title: str,
        effect: Text,
        confirm: str,
        verb: str,
        opened_by: str,
        refusal: Callable[[], str | None],
    ) -> None:
        super().__init__(
            title=title, effect=effect, placeholder="why?", opened_by=opened_by, grave=True, refusal=refusal
        )
        self._confirm, self._verb = confirm, verb

    def keys(self) -> Text:
        return key_line((self._confirm, self._verb), ("escape", "go back"))

    def on_mount(self) -> None:
        super().on_mount()
        self._bindings.bind(self._confirm, "confirm", show=False, priority=True)

    @on(Input.Submitted)
    def _explain(self) -> None:
        self.hint(Text("Enter does nothing here; ", look.AMBER).append_text(self.keys()))

    def action_confirm(self) -> None:
        if not self.holds():
            return
        if self.written:
            self.dismiss(self.written)
        else:
            self.hint(Text("a word on why first; it stands in the record  ", look.AMBER).append_text(self.keys()))


class Tell(Dialog):
    """A message, sent with Enter: it changes no verdict. `beside`: the experiment that it is about."""

    def __init__(self, *, beside: str = "") -> None:
        said = "It stands in the agent's next briefing; the proposal under way does not see it."
        super().__init__(
            title=f"note on {beside}" if beside else "message to the agent",
            effect=Text(f"It stands beside {beside} and{said[2:]}" if beside else said, look.INK),
            placeholder="what should it know?",
            opened_by="m",
            grave=False,
        )

    def keys(self) -> Text:
        return key_line(("enter", "send"), ("escape", "go back"))

    @on(Input.Submitted)
    def _send(self) -> None:
        self.dismiss(self.written or None)
