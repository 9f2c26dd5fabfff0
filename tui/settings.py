"""What the cockpit remembers from one time to the next: its theme and its layout."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import msgspec
from msgspec.structs import replace

VERSION = 1


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """A file of another `version` is left alone."""

    version: int = VERSION
    theme: str = "labtop"
    pane: int = 5
    zoomed: bool = False
    chart: str = "history"
    sort: str = "newest"
    reverse: bool = False
    bell: bool = True


def changed(settings: Settings, **fields: object) -> Settings:
    return replace(settings, **fields)


def path() -> Path:
    """Where they are kept: under `$XDG_STATE_HOME`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "labtop" / "cockpit.json"


def load() -> tuple[Settings, str]:
    """The settings, and in a sentence why they are the default ones where the file could not be used."""
    try:
        raw = path().read_bytes()
    except OSError:
        return Settings(), ""
    try:
        found = msgspec.json.decode(raw, type=Settings)
    except msgspec.MsgspecError:
        return Settings(), f"layout and theme begin anew: {path()} cannot be read"
    if found.version != VERSION:
        return Settings(), f"layout and theme begin anew: another version of labtop wrote {path()}"
    return found, ""


def save(settings: Settings) -> None:
    """Replace the file in one step. Where that cannot be done the layout is forgotten, and nothing else is lost."""
    target = path()
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".cockpit.", delete=False) as file:
            file.write(msgspec.json.format(msgspec.json.encode(settings)))
        Path(file.name).replace(target)
