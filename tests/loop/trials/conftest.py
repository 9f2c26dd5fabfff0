"""Trials behind real walls, of a study that has something to lose."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loop.events import SandboxKind, TrialFinished
from loop.trials.confine import landlock_abi
from loop.trials.local import LocalTrial, TrialSpec
from loop.trials.sandbox import PASSING, choose

SECRET = "sesame-4711"


class Bench:
    """A person's home and repository, and trials of any script in it."""

    secret = SECRET
    measure = "print('---'); print('val_bpb: 1.25')\n"
    """What an honest script ends with."""

    def __init__(self, place: Path, kind: SandboxKind) -> None:
        self.place, self.kind = place, kind
        self.root, self.home = place / "repository", place / "home"
        self.study = self.root / ".labtop" / "t"
        self.mark = uuid.uuid4().hex
        """Stands in the command line of every process of a trial, as long as the process leaves it there."""
        for path in (
            self.home / ".ssh" / "id_ed25519",
            self.root / ".git" / "config",
            self.root / "train.py",
            self.root / "prepare.py",
            self.study / "journal.jsonl",
            self.study / "experiments" / "0000" / "trial-1" / "exit.json",
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SECRET)

    def spec(self, script: str | None = None, *, name: str = "trial-1", **fields) -> TrialSpec:
        experiment = self.study / "experiments" / "0003"
        source = experiment / name / "source"
        source.mkdir(parents=True)
        if script is not None:
            (source / "train.py").write_text(script)
        given = {"command": f"python train.py {self.mark}", "timeout": 300.0, "silence": 300.0, "environment": {}}
        given |= {"memory": 2**34, "disk": 2**30, "processes": 500, "hidden": (self.root,)}
        return TrialSpec(
            number=3,
            trial=1,
            metric="val_bpb",
            device="cpu",
            seed=7,
            budget=5.0,
            source=source,
            folder=experiment / name,
            log=experiment / f"{name}.log",
            metrics=experiment / f"{name}.jsonl",
            sandbox=self.kind,
            **{**given, **fields},
        )

    async def run(self, script: str | None = None, **fields) -> TrialFinished:
        return await self.follow(await LocalTrial.launch(self.spec(script, **fields)))

    async def follow(self, trial: LocalTrial) -> TrialFinished:
        async for _ in trial.follow():
            pass
        return trial.result()

    async def start(self, script: str, **fields) -> tuple[LocalTrial, asyncio.Task[TrialFinished]]:
        """A trial, and what waits for its end."""
        trial = await LocalTrial.launch(self.spec(script, **fields))
        return trial, asyncio.create_task(self.follow(trial))

    def log(self, name: str = "trial-1") -> str:
        path = self.study / "experiments" / "0003" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def told(self, name: str = "trial-1") -> dict[str, str]:
        """The lines of a log that read `key: words`."""
        return dict(line.split(": ", 1) for line in self.log(name).splitlines() if ": " in line)

    def living(self) -> list[int]:
        """The processes that bear the mark."""
        return [
            process.pid for process in psutil.process_iter(["cmdline"]) if self.mark in str(process.info["cmdline"])
        ]


@pytest.fixture(params=["bubblewrap", "landlock"])
def kind(request: pytest.FixtureRequest) -> SandboxKind:
    """Every sandbox that this machine can have: one that it could have, and that fails, is no reason to skip."""
    if request.param == "landlock" and not landlock_abi():
        pytest.skip("this kernel has no Landlock")
    if request.param == "bubblewrap" and not user_namespaces():
        pytest.skip("bubblewrap is not installed, or may not make a user namespace")
    return choose(request.param)


def user_namespaces() -> bool:
    if shutil.which("bwrap") is None:
        return False
    return (
        subprocess.run(["bwrap", "--unshare-user", "--ro-bind", "/", "/", "true"], capture_output=True).returncode == 0
    )


@pytest.fixture
def bench(request: pytest.FixtureRequest, kind: SandboxKind, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    place = Path(tempfile.mkdtemp(prefix="labtop-", dir=in_the_open(request.config.cache.mkdir("trials")))).resolve()
    bench = Bench(place, kind)
    monkeypatch.setenv("HOME", str(bench.home))
    yield bench
    for pid in bench.living():
        psutil.Process(pid).kill()
    shutil.rmtree(place, ignore_errors=True)


def in_the_open(here: Path) -> Path:
    """A folder that is not hidden in any case: there it would not be seen whether anything else hides a repository."""
    for folder in (here, Path("/opt"), Path("/srv"), Path("/usr/local")):
        hidden = any(folder.resolve().is_relative_to(place) for place in PASSING)
        if not hidden and os.access(folder, os.W_OK):
            return folder
    pytest.skip(f"{here} is hidden from every trial, and no other folder can be written")


@pytest.fixture
def walled(lab, kind: SandboxKind) -> Callable[[str], None]:
    """Makes a script the study's own, to be run by its engine behind these walls."""

    def commit(script: str) -> None:
        (lab.root / "train.py").write_text(script)
        with (lab.root / "labtop.toml").open("a") as settings:
            settings.write(f'sandbox = "{kind}"\n')
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run([*git, "commit", "-qam", "a script"], cwd=lab.root, check=True)

    return commit
