"""program.md in an editor. Saved whole or not at all, and never over someone else's edit without a word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import TextArea

from tui import diffs, look
from tui.engine import Fetch
from tui.panes.pane import Words
from tui.screens.ask import key_line
from tui.screens.page import Page

LOOK_AGAIN = 1.0
"""Seconds between two looks at whether the file is another one."""


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


def merge(mine: str, base: str, theirs: str) -> str | None:
    """Both changes to `base` in one text; None where they are in the same lines, or git is not there to merge them."""
    with tempfile.TemporaryDirectory(prefix="labtop-merge-") as folder:
        paths = [Path(folder) / name for name in ("mine", "base", "theirs")]
        for path, text in zip(paths, (mine, base, theirs), strict=True):
            path.write_bytes(text.encode("utf-8"))
        try:
            done = subprocess.run(["git", "merge-file", "-p", *map(str, paths)], capture_output=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8") if done.returncode == 0 else None


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
        Binding("ctrl+d", "diff", show=False, priority=True),
        Binding("escape,ctrl+q", "leave", show=False, priority=True),
    ]

    def __init__(self, path: Path, text: str, *, version: int, fetch: Fetch) -> None:
        """`text` is what `read` gave for `path`; `version` is the one that the agent has."""
        super().__init__()
        self._path, self._version, self._fetch = path, version, fetch
        self._on_disk = text
        self._saved = False
        self._conflict = self._elsewhere = False

    def compose(self) -> ComposeResult:
        yield Words(id="title")
        yield TextArea(self._on_disk, show_line_numbers=False, soft_wrap=True, tab_behavior="indent")
        yield Words(id="keys")

    def on_mount(self) -> None:
        self.query_one(TextArea).focus()
        self._tell()
        self.set_interval(LOOK_AGAIN, self._look)

    async def _look(self) -> None:
        """Whether somebody else has changed the file: better told now than when it is saved."""
        with contextlib.suppress(OSError, UnicodeError):
            found = await asyncio.to_thread(read, self._path)
            if (found != self._on_disk) != self._elsewhere:
                self._elsewhere = found != self._on_disk
                self._tell()

    @property
    def _text(self) -> str:
        return self.query_one(TextArea).text

    @property
    def changed(self) -> bool:
        return self._text != self._on_disk

    @on(TextArea.Changed)
    def _tell(self) -> None:
        title = Text(self._path.name, f"bold {look.INK}")
        title.append("  changed, not saved" if self.changed else "  as it stands on disk", look.FAINT)
        if self._elsewhere:
            title.append("  ! changed on disk meanwhile; saving merges it", look.AMBER)
        self.query_one("#title", Words).say(title)
        keys = key_line(("ctrl+s", "save"), ("ctrl+d", "diff to the running version"), ("escape", "back"))
        if self._conflict:
            keys = Text("changed on disk since you opened it, in the same lines  ", f"bold {look.AMBER}")
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
            theirs = self._on_disk if over else await asyncio.to_thread(read, self._path)
            if theirs != self._on_disk:
                await self._merge(text, theirs)
                return
            await asyncio.to_thread(save, self._path, text)
        except (OSError, UnicodeError) as error:
            self.notify(f"not saved: {error}", severity="error", markup=False)
            return
        self._on_disk, self._saved, self._conflict, self._elsewhere = text, True, False, False
        if leave:
            self.dismiss(True)
            return
        self._tell()
        self.notify("saved; the agent reads it in its next briefing", markup=False)

    async def _merge(self, mine: str, theirs: str) -> None:
        """Take in what somebody else wrote, to be looked at before it is saved; refuse where both changed a line."""
        merged = await asyncio.to_thread(merge, mine, self._on_disk, theirs)
        self._conflict = merged is None
        if merged is not None:
            self._on_disk, self._elsewhere = theirs, False
            self.query_one(TextArea).load_text(merged)
            self.notify("merged with what was written on disk meanwhile; look at it, and save again", markup=False)
        self._tell()

    def action_diff(self) -> None:
        self.run_worker(self._compare(), group="diff", exclusive=True)

    async def _compare(self) -> None:
        running = await self._fetch(self._version, "spec")
        if running is None:
            self.notify("no engine answers; the running version is in .labtop", severity="warning", markup=False)
        else:
            self.app.push_screen(Comparison(running, self._text, version=self._version))

    async def _load(self) -> None:
        try:
            self._on_disk = await asyncio.to_thread(read, self._path)
        except (OSError, UnicodeError) as error:
            self.notify(f"not loaded: {error}", severity="error", markup=False)
            return
        self._conflict = self._elsewhere = False
        self.query_one(TextArea).load_text(self._on_disk)
        self._tell()


class Comparison(Page):
    """What the text changes in the version that the agent has."""

    def __init__(self, running: str, text: str, *, version: int) -> None:
        super().__init__()
        self._before, self._after, self._version = running, text, version

    def on_mount(self) -> None:
        before, after = (text.splitlines(keepends=True) for text in (self._before, self._after))
        name = "program.md"
        lines = [line if line.endswith("\n") else f"{line}\n" for line in unified_diff(before, after, name, name)]
        texts = diffs.drawn("".join(lines), width=self.size.width - 4, code=False).texts
        same = Text("it is what the agent has", look.FAINT)
        title = f"program.md, against version {self._version}, which the agent has"
        self.fill(title, texts or [same], key_line(("up/down", "scroll"), ("escape", "back")))


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

    def __init__(self, what: str = "program.md") -> None:
        super().__init__()
        self._what = what

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Words(id="question")
            yield Words(id="keys")

    def on_mount(self) -> None:
        self.query_one("#question", Words).say(Text(f"{self._what} has changes that are not saved", look.INK))
        keys = key_line(("ctrl+s", "save and leave"), ("ctrl+d", "drop them"), ("escape", "go on editing"))
        self.query_one("#keys", Words).say(keys)

    def action_choose(self, choice: str) -> None:
        self.dismiss(choice or None)
