"""Where every file of a study lies, and the terms it was opened on."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path

import msgspec

from loop.config import Config
from loop.events import SandboxKind


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """One study of a repository: its files are under `.labtop/<tag>/`, but for the socket. `budget` is in seconds."""

    root: Path
    tag: str
    config: Config
    device: str
    budget: float
    agent: str
    sandbox: SandboxKind

    @property
    def folder(self) -> Path:
        return self.root / ".labtop" / self.tag

    @property
    def branch(self) -> str:
        return f"labtop/{self.tag}"

    @property
    def program(self) -> Path:
        return self.root / self.config.program

    @property
    def journal(self) -> Path:
        return journal_path(self.root, self.tag)

    @property
    def results(self) -> Path:
        return self.folder / "results.tsv"

    def experiment(self, number: int) -> Path:
        return self.folder / "experiments" / f"{number:04d}"

    def diff(self, number: int) -> Path:
        return self.experiment(number) / "proposal.diff"

    def reasoning(self, number: int) -> Path:
        return self.experiment(number) / "reasoning.md"

    @property
    def worktree(self) -> Path:
        """Where an agent that wants files works; made anew for each of its turns."""
        return self.folder / "worktree"

    def trial(self, number: int, trial: int) -> Path:
        """The runner's own folder of a trial."""
        return self.experiment(number) / f"trial-{trial}"

    def log(self, number: int, trial: int) -> Path:
        return self.experiment(number) / f"trial-{trial}.log"

    def audit_log(self, number: int, trial: int) -> Path:
        return self.experiment(number) / f"trial-{trial}.audit.log"

    def metrics(self, number: int, trial: int) -> Path:
        return self.experiment(number) / f"trial-{trial}.metrics.jsonl"

    def spec(self, version: int) -> Path:
        """program.md as it stood at `version`."""
        return self.folder / "specs" / f"{version:04d}.md"


def tags(root: Path) -> list[str]:
    """The studies of a repository, the one that was written to last first."""
    journals = (path for path in (root / ".labtop").glob("*/journal.jsonl") if path.stat().st_size)
    return [path.parent.name for path in sorted(journals, key=lambda path: path.stat().st_mtime, reverse=True)]


def save(path: Path, text: str) -> None:
    """Write a file of a study, and the folders that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def journal_path(root: Path, tag: str) -> Path:
    return root / ".labtop" / tag / "journal.jsonl"


def engine_log(root: Path, tag: str) -> Path:
    """What the engine itself has to say; the last resort of a person who looks for a fault."""
    return root / ".labtop" / tag / "engine.log"


def socket_path(root: Path, tag: str) -> Path:
    """The engine's socket, in a folder of this user alone and outside the repository.

    Not under `.labtop`: a trial may see the repository, and a Unix socket's path is limited to about 100 bytes.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "labtop" if runtime else Path(tempfile.gettempdir()) / f"labtop-{os.getuid()}"
    name = hashlib.sha256(f"{root.resolve()}\0{tag}".encode()).hexdigest()[:16]
    return folder / f"{name}.sock"


def answers(path: Path) -> bool:
    """Whether an engine listens on the socket at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
