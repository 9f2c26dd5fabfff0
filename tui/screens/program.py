"""program.md in an editor. Saved whole or not at all, and never over someone else's edit without a word."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import TextArea

from tui import look
from tui.panes.pane import Words
from tui.screens.ask import key_line


def read(path: Path) -> str:
    """The file's text, its line ends as they are; "" where there is none. Raises: UnicodeDecodeError, OSError."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return ""


def save(path: Path, text: str) -> None:
    """Replace the file in one step, its mode kept, a link followed. Raises: OSError."""
    target = path.resolve()
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class ProgramEditor(Screen[bool]):
    """Gives whether anything was saved."""

    DEFAULT_CSS = """
    ProgramEditor #title, ProgramEditor #keys { height: 1; background: $panel; padding: 0 1; }
    ProgramEditor TextArea, ProgramEditor TextArea:focus { border: none; padding: 1 1; background: $background; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "save", show=False, priority=True),
        Binding("ctrl+o", "overwrite", show=False, priority=True),
        Binding("ctrl+l", "load", show=False, priority=True),
        Binding("escape,ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, path: Path, text: str) -> None:
        """`text` is what `read` gave for `path`."""
        super().__init__()
        self._path = path
        self._on_disk = text
        self._saved = False
        self._conflict = False

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield TextArea(self._on_disk, show_line_numbers=False, soft_wrap=True, tab_behavior="indent")
        yield Words(id="keys")

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()
        self._tell()

    @property
    def _text(self) -> str:
        return self.query_one(TextArea).text

    @property
    def changed(self) -> bool:
        return self._text != self._on_disk

    @on(TextArea.Changed)
    def _tell(self) -> None:
        title = Text(str(self._path), f"bold {look.INK}")
        title.append("  changed, not saved" if self.changed else "  as it stands on disk", look.FAINT)
        self.query_one("#title", Words).say(title)
        keys = key_line(("ctrl+s", "save"), ("escape", "back"))
        if self._conflict:
            keys = Text("changed on disk since you opened it  ", f"bold {look.AMBER}")
            keys.append_text(key_line(("ctrl+o", "save yours over it"), ("ctrl+l", "load it, lose yours")))
        self.query_one("#keys", Words).say(keys)

    def action_save(self) -> None:
        self._start_save(over=False)

    def action_overwrite(self) -> None:
        if self._conflict:
            self._start_save(over=True)

    def action_load(self) -> None:
        if self._conflict:
            self.run_worker(self._load(), group="file", exclusive=True)

    def action_leave(self) -> None:
        if self.changed:
            self.app.push_screen(Unsaved(), self._leave_as)
        else:
            self.dismiss(self._saved)

    def _leave_as(self, choice: str | None) -> None:
        if choice == "drop":
            self.dismiss(self._saved)
        elif choice == "save":
            self._start_save(over=False, leave=True)

    def _start_save(self, *, over: bool, leave: bool = False) -> None:
        self.run_worker(self._save(over=over, leave=leave), group="file", exclusive=True)

    async def _save(self, *, over: bool, leave: bool) -> None:
        text = self._text
        try:
            if not over and await asyncio.to_thread(read, self._path) != self._on_disk:
                self._conflict = True
                self._tell()
                return
            await asyncio.to_thread(save, self._path, text)
        except (OSError, UnicodeError) as error:
            self.notify(f"not saved: {error}", severity="error", markup=False)
            return
        self._on_disk, self._saved, self._conflict = text, True, False
        if leave:
            self.dismiss(True)
            return
        self._tell()
        self.notify("saved; the agent reads it in its next briefing", markup=False)

    async def _load(self) -> None:
        try:
            self._on_disk = await asyncio.to_thread(read, self._path)
        except (OSError, UnicodeError) as error:
            self.notify(f"not loaded: {error}", severity="error", markup=False)
            return
        self._conflict = False
        self.query_one(TextArea).load_text(self._on_disk)
        self._tell()


class Unsaved(ModalScreen[str | None]):
    """Gives "save", "drop" or None."""

    DEFAULT_CSS = """
    Unsaved { align: center middle; background: $background 60%; }
    Unsaved > Vertical {
        width: 64; max-width: 90%; height: auto; padding: 1 2; background: $panel; border: round $warning;
    }
    Unsaved #question { margin-bottom: 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "choose('save')", show=False),
        Binding("ctrl+d", "choose('drop')", show=False),
        Binding("escape", "choose('')", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Words(id="question")
            yield Words(id="keys")

    def on_mount(self) -> None:
        self.query_one("#question", Words).say(Text("program.md has changes that are not saved", look.INK))
        keys = key_line(("ctrl+s", "save and leave"), ("ctrl+d", "drop them"), ("escape", "go on editing"))
        self.query_one("#keys", Words).say(keys)

    def action_choose(self, choice: str) -> None:
        self.dismiss(choice or None)
