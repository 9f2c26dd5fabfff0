"""The patch of the proposal that waits, as a text to change. What the engine refuses stays on the screen."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import TextArea

from loop import commands
from tui import look, words
from tui.engine import Do
from tui.panes.pane import Words
from tui.screens.ask import key_line
from tui.screens.program import Unsaved


class PatchEditor(Screen[bool]):
    """Gives whether the patch is another one now."""

    DEFAULT_CSS = """
    PatchEditor #title { height: 1; background: $panel; padding: 0 1; }
    PatchEditor #keys { background: $panel; padding: 0 1; max-height: 4; }
    PatchEditor TextArea, PatchEditor TextArea:focus { border: none; padding: 1 1; background: $background; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", show=False, priority=True),
        Binding("escape,ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, number: int, diff: str, *, do: Do) -> None:
        super().__init__()
        self._number, self._diff, self._do = number, diff, do

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield TextArea(self._diff, show_line_numbers=True, soft_wrap=False, tab_behavior="indent")
        yield Words(id="keys")

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()
        self._tell()

    @on(TextArea.Changed)
    def _tell(self) -> None:
        title = Text(f"the patch of {words.name(self._number)}, against the incumbent", f"bold {look.INK}")
        title.append("  changed" if self._changed else "  as the agent made it", look.FAINT)
        self.query_one("#title", Words).say(title)
        self._say(Text("change the lines behind + and -; the counts behind @@ need not fit", look.FAINT))

    def _say(self, text: Text) -> None:
        keys = key_line(("ctrl+s", "put it in the place of the agent's"), ("escape", "back"))
        self.query_one("#keys", Words).say(Text("\n").join((text, keys)), layout=True)

    @property
    def _changed(self) -> bool:
        return self.query_one(TextArea).text != self._diff

    def action_save(self) -> None:
        self.run_worker(self._save(), group="patch", exclusive=True)

    async def _save(self) -> None:
        text = self.query_one(TextArea).text
        reply = await self._do(commands.Amend(diff=text if text.endswith("\n") else text + "\n", number=self._number))
        if reply.ok:
            self.notify(words.one_line(reply.text), markup=False)
            self.dismiss(True)
        else:
            self._say(Text(words.one_line(reply.text), f"bold {look.AMBER}"))

    def action_leave(self) -> None:
        if not self._changed:
            self.dismiss(False)
            return
        self.app.push_screen(Unsaved("the patch"), self._leave_as)

    def _leave_as(self, choice: str | None) -> None:
        if choice == "drop":
            self.dismiss(False)
        elif choice == "save":
            self.action_save()
