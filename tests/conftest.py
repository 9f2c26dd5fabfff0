"""A study in a repository of its own, with a trainer that takes milliseconds, and the engine that runs it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loop.agents import Agent, make
from loop.commands import Stop
from loop.config import load
from loop.engine import Engine
from loop.inbox import Inbox
from loop.journal import Journal
from loop.remote.server import Server
from loop.study import Study, socket_path
from loop.trials.sandbox import choose
from loop.workspace import Workspace

# A shell that starts the suite in the background lets it ignore Ctrl+C, and with it everything that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

STANDIN = Path(__file__).parent / "standin" / "train.py"
SETTINGS = """
command = "python train.py"
editable = ["train.py"]
metric = "val_bpb"
budget = 1
policy = "margin"
timeout = 600
"""


def run_git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def commit_all(root: Path, message: str = "change") -> str:
    run_git(root, "add", "-A")
    run_git(root, "commit", "-qm", message)
    return run_git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A committed study that the stand-in trains."""
    root = tmp_path / "repository"
    root.mkdir()
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    run_git(root, "init", "-q", "-b", "main")
    (root / "train.py").write_text(STANDIN.read_text())
    (root / "program.md").write_text("Make it better.\n")
    (root / "labtop.toml").write_text(SETTINGS)
    (root / ".gitignore").write_text(".labtop/\n")
    commit_all(root, "a study")
    yield root


class Lab:
    """A real engine on a real repository, in this process, with its socket open."""

    def __init__(self, root: Path, tag: str = "t") -> None:
        self.root, self.tag = root, tag
        self.socket = socket_path(root, tag)

    def edit(self, old: str, new: str) -> None:
        """Change the training script, and commit it."""
        path = self.root / "train.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        commit_all(self.root)

    @asynccontextmanager
    async def engine(
        self, experiments: int | None = None, agent: Agent | None = None, device: str = "cpu"
    ) -> AsyncIterator[Engine]:
        """Runs until the block ends, or until it has done so many experiments. The agent is `search`, unless given."""
        settings = load(self.root)
        study = Study(
            root=self.root,
            tag=self.tag,
            config=settings,
            device=device,
            budget=1.0,
            agent="search",
            sandbox=choose(settings.sandbox),
        )
        journal = Journal(study.journal)
        workspace = Workspace(self.root, self.tag)
        agent = agent or make("search", seed=1)
        engine = Engine(study, journal=journal, workspace=workspace, agent=agent, experiments=experiments)
        engine.check_terms()
        inbox = Inbox(engine)
        server = Server(engine, inbox, self.socket)
        await server.start()
        running = asyncio.create_task(engine.run())
        engine.task, engine.do = running, inbox.do  # type: ignore[attr-defined]
        try:
            yield engine
        finally:
            if not running.done():
                await inbox.do(Stop(now=True))
            try:
                await running
            finally:
                await server.close()
                journal.close()


@pytest.fixture
def lab(repository: Path) -> Lab:
    return Lab(repository)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Waits until a condition holds; fails, with the condition's words, after `seconds`."""

    async def wait(condition: Callable[[], object], what: str = "the condition", seconds: float = 300.0) -> None:
        for _ in range(int(seconds / 0.01)):
            if condition():
                return
            await asyncio.sleep(0.01)
        pytest.fail(f"{what} did not come true within {seconds:.0f} s")

    return wait
