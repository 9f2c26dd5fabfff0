"""The folder that an agent works in: what it changed there, and how that is put back. No git runs in it.

What an agent leaves is hostile: a link that leads elsewhere, a setting of git that runs a command. So links are never
followed, and nothing in the folder is ever run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath

import msgspec

KEPT = 1 << 20
"""Bytes of a file up to which it can be put back."""

CACHES = {"__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache"}
"""What running things leaves behind, told to nobody."""


class Entry(msgspec.Struct, frozen=True):
    """A file as it was, or a link's target."""

    digest: bytes
    data: bytes | None
    link: bool
    mode: int


class Worktree:
    """`folder` as it stands when this is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._before = self._look()

    def _look(self) -> dict[str, Entry]:
        found = {}
        for place, folders, files in os.walk(self.folder):
            here = Path(place)
            if here == self.folder and ".git" in folders:
                folders.remove(".git")
            for name in [*files, *(name for name in folders if (here / name).is_symlink())]:
                path = here / name
                found[path.relative_to(self.folder).as_posix()] = _entry(path)
        return found

    def changed(self) -> list[str]:
        """What was changed, added or removed, in order."""
        now, before = self._look(), self._before
        return sorted(path for path in {*now, *before} if now.get(path) != before.get(path))

    def put_back(self, paths: Collection[str]) -> list[str]:
        """Make `paths` what they were. Returns those that a person would want to hear of."""
        for path in paths:
            place, was = self.folder / path, self._before.get(path)
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)
            if was is None or was.data is None:
                continue
            for parent in reversed(place.relative_to(self.folder).parents):
                folder = self.folder / parent
                if folder.is_symlink() or folder.is_file():
                    folder.unlink()
                folder.mkdir(exist_ok=True)
            if was.link:
                place.symlink_to(os.fsdecode(was.data))
            else:
                place.write_bytes(was.data)
                place.chmod(was.mode)
        return [path for path in paths if not CACHES & set(PurePosixPath(path).parts)]

    def texts(self, paths: Collection[str]) -> Mapping[str, str]:
        """Path to new text. Raises: ValueError, in words for the agent, where one is no text file any more."""
        found = {}
        for path in paths:
            place = self.folder / path
            if place.is_symlink() or not place.is_file() or place.resolve() != place:
                self.put_back([path])  # Lest what is written next goes to where a link leads.
                raise ValueError(f"{path} was no file any more, and is what it was again")
            try:
                found[path] = place.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path} is no UTF-8 text any more") from None
        return found

    def inside(self, path: str) -> str | None:
        """`path`, absolute or of this folder, as a path of this folder; None where it leads out of it."""
        place = Path(path) if Path(path).is_absolute() else self.folder / path
        resolved = place.parent.resolve() / place.name
        if place.is_symlink() or not resolved.is_relative_to(self.folder):
            return None
        inner = resolved.relative_to(self.folder)
        return None if inner.parts[:1] == (".git",) or ".." in inner.parts else inner.as_posix()


def _entry(path: Path) -> Entry:
    status = path.lstat()
    if path.is_symlink():
        target = os.fsencode(path.readlink())
        return Entry(target, target, True, 0)
    if not path.is_file():
        return Entry(b"", None, False, status.st_mode)  # A pipe or a socket, which nobody reads.
    if status.st_size <= KEPT:
        data = path.read_bytes()
        return Entry(hashlib.sha256(data).digest(), data, False, status.st_mode)
    with path.open("rb") as file:
        return Entry(hashlib.file_digest(file, "sha256").digest(), None, False, status.st_mode)
