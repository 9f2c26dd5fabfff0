"""Engines for the cockpit to look at: the real one of `lab`, and one of cardboard that says what it is told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from textual.pilot import Pilot

from loop import events as ev
from loop import journal
from loop.events import Record
from loop.remote import wire
from loop.state import fold
from loop.study import answers, journal_path, socket_path, tags
from tui import plain
from tui.app import LabtopApp

SIZE = (120, 40)
PATIENCE = 300.0
"""Seconds that a condition may take on a machine that is busy."""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Colours, nothing remembered from elsewhere, and more frames and looks a second: what is waited for comes soon."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tui.screens.cockpit.FRAMES", 20)
    monkeypatch.setattr("tui.screens.experiment.LOOK_AGAIN", 0.1)
    monkeypatch.setattr("tui.app.RECONNECT", 0.1)


@pytest.fixture
def text_of() -> Callable[[LabtopApp], str]:
    """What a person sees."""
    return lambda app: "\n".join(strip.text for strip in app.screen._compositor.render_strips())


@pytest.fixture
def sees(text_of) -> Callable[..., object]:
    """Waits until the screen shows some words."""

    async def wait(app: LabtopApp, *words: str) -> str:
        end = time.monotonic() + PATIENCE
        while missing := [word for word in words if word not in (screen := text_of(app))]:
            if time.monotonic() > end:
                pytest.fail(f"the screen never showed {missing}; it shows\n{screen}")
            await asyncio.sleep(0.02)
        return screen

    return wait


Open = Callable[..., AbstractAsyncContextManager[tuple[LabtopApp, Pilot[str]]]]


@pytest.fixture
def cockpit(lab) -> Open:
    """Opens the application on the real engine of `lab`, and gives it with its pilot."""
    return _opener(lab.socket, lab.root)


@pytest.fixture
def cardboard_cockpit(cardboard, tmp_path: Path) -> Open:
    return _opener(cardboard.socket, tmp_path)


def _opener(socket: Path, root: Path) -> Open:
    @asynccontextmanager
    async def opened(size: tuple[int, int] = SIZE) -> AsyncIterator[tuple[LabtopApp, Pilot[str]]]:
        app = LabtopApp(socket=socket, root=root, program=Path("program.md"))
        async with app.run_test(size=size, notifications=True) as pilot:
            yield app, pilot

    return opened


@pytest.fixture
def edit_trainer(repository: Path) -> Callable[[str, str], None]:
    """Changes the stand-in trainer, and commits it."""

    def edit(old: str, new: str) -> None:
        path = repository / "train.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
        subprocess.run([*git, "commit", "-qam", "edited"], cwd=repository, check=True)

    return edit


@pytest.fixture
def slow(edit_trainer) -> None:
    """The stand-in trains for minutes, but for the baseline's sake not at once."""
    edit_trainer("STEPS = 5", "STEPS = 3000")
    unchanged = "LEARNING_RATE == 0.02 and DEPTH == 4 and WIDTH == 64"
    edit_trainer("SECONDS = 0.0", f"SECONDS = 0.0 if {unchanged} else 300.0")


class Shell:
    """Types `labtop …` in a repository."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tui.cli", *words],
            cwd=self.root, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip

    def begin(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tui.cli", *words],
            cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def state(self) -> dict:
        """The latest study as `labtop status --json` tells it, read here: a process for each look takes a second."""
        for tag in tags(self.root):
            state, alive = fold(journal.read(journal_path(self.root, tag))), answers(socket_path(self.root, tag))
            return json.loads(plain.as_json(state, alive=alive))
        return {}

    def until(self, condition: Callable[[dict], object], what: str) -> dict:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            state = self.state()
            if state and condition(state):
                return state
            time.sleep(0.05)
        pytest.fail(f"{what} did not come true; the state is {state}")

    def training(self) -> dict:
        """The state once a proposal trains, and has printed a step."""

        def trains(state: dict) -> bool:
            current = state["current"] or {}
            if not state["best"] or current.get("stage") != "training":
                return False
            folder = self.root / ".labtop" / state["tag"] / "experiments" / f"{current['number']:04d}"
            return any(log.stat().st_size for log in folder.glob("trial-*.log"))

        return self.until(trains, "a proposal trains")


@pytest.fixture
def labtop(repository: Path) -> Iterator[Shell]:
    shell = Shell(repository)
    yield shell
    for tag in tags(repository):
        if answers(socket_path(repository, tag)):
            shell("stop", "--now", "--tag", tag)
    for lock in repository.glob(".labtop/*/journal.lock"):
        pid = lock.read_text().strip()
        if pid and Path(f"/proc/{pid}/cmdline").exists() and b"daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def held(lab, edit_trainer) -> Callable[[], None]:
    """Keeps every training but the baseline's between two steps, where it can be paused, until this is called."""
    gate = lab.root / ".labtop" / "gate" / "held"
    gate.parent.mkdir(parents=True)
    gate.touch()
    settings = lab.root / "labtop.toml"
    text = settings.read_text().replace("timeout = 600", "timeout = 6000")
    settings.write_text(f"{text}readable = ['.labtop/gate']\n")
    edit_trainer(
        "        time.sleep(SECONDS / STEPS)\n",
        "        changed = (LEARNING_RATE, WIDTH, DEPTH, STEPS, SECONDS) != (0.02, 64, 4, 5, 0.0)\n"
        f"        while step and changed and Path({str(gate)!r}).exists() and not (control / 'pause').exists():\n"
        "            time.sleep(0.01)\n",
    )
    return gate.unlink


DIFF = """--- a/train.py
+++ b/train.py
@@ -10,3 +10,3 @@ def main():
 a = 1
-MATRIX_LR = 0.02
+MATRIX_LR = 0.04
 b = "two"
"""
GPU = ev.Device(
    name="NVIDIA H200", utilisation=0.97, memory_used=61 << 30, memory_total=139 << 30, temperature=61.0, power=612.0,
    power_limit=700.0, clock=1980.0,
)  # fmt: skip


class Samples:
    """What is told of a run."""

    diff = DIFF
    reading = ev.Machine(
        time=1.0, cpu=(0.5,) * 16, memory_used=12 << 30, memory_total=64 << 30, load=3.5, devices=(GPU,)
    )

    @staticmethod
    def step(number: int, at: int, *, trial: int = 1) -> ev.Step:
        return ev.Step(
            number=number, trial=trial, time=3.0 * at, step=at, loss=4 - at / 100, progress=at / 100,
            tokens_per_second=1.23e6, mfu=0.41,
        )  # fmt: skip


@pytest.fixture
def samples() -> Samples:
    return Samples()


class Cardboard:
    """Answers `Watch` with a snapshot of what was told so far, and everything else with `answers`."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.records: list[Record] = []
        self.recent: list = []
        self.files: dict[tuple, str] = {}
        """By number and artifact, and, where it is given, by trial."""
        self.speaks = True
        """Whether it keeps to the protocol of this version."""
        self.commands: list = []
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))

    async def vanish(self) -> None:
        """End like a killed process: without a word."""
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        self.socket.unlink(missing_ok=True)

    def tell(self, *messages) -> None:
        """Events are journalled and sent, telemetry is kept for later viewers and sent."""
        for message in messages:
            if isinstance(message, ev.Event):
                record = Record(seq=len(self.records) + 1, time=1_700_000_000.0 + 10 * len(self.records), event=message)
                self.records.append(record)
                message = wire.Recorded(record=record)
            else:
                self.recent.append(message)
            for writer in self._writers:
                writer.write(wire.encode(message))

    def tell_study(
        self, *verdicts: str | None, baseline: str | None = "keep", hypothesis: str = "warm down later"
    ) -> None:
        """A study's opening, its baseline at 1.7, and an experiment for each verdict; None: it trains."""
        self.tell(
            ev.StudyOpened(
                tag="may12",
                branch="labtop/may12",
                base="b" * 40,
                metric="val_bpb",
                direction="minimize",
                budget=300.0,
                device="cuda",
                command="python train.py",
            ),
            ev.EngineStarted(pid=4242, host="h", agent="llm", version="0"),
            ev.SpecChanged(version=1, digest="d"),
        )
        for number, verdict in enumerate((baseline, *verdicts)):
            self.tell(*experiment_events(number, verdict, hypothesis=hypothesis))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = msgspec.json.Decoder(wire.AnyRequest)
        while (request := await wire.read(reader, decoder)) is not None:
            match request:
                case wire.Watch() if not self.speaks:
                    writer.write(struct.pack(">I", 2) + b"{}")
                case wire.Watch():
                    writer.write(wire.encode(wire.Snapshot(state=fold(self.records), recent=tuple(self.recent))))
                    self._writers.append(writer)
                case wire.Act(id=id, command=command):
                    self.commands.append(command)
                    writer.write(wire.encode(wire.Answer(id=id, ok=True, text="[/] as you say")))
                case wire.Fetch(id=id, number=number, artifact=artifact, trial=trial):
                    text = self.files.get((number, artifact, trial), self.files.get((number, artifact)))
                    writer.write(wire.encode(wire.Answer(id=id, ok=text is not None, text=text or "")))
        writer.close()


@pytest.fixture
async def cardboard(tmp_path: Path) -> AsyncIterator[Cardboard]:
    engine = Cardboard(tmp_path / "cardboard.sock")
    await engine.start()
    yield engine
    await engine.vanish()


def experiment_events(number: int, verdict: str | None, *, hypothesis: str = "warm down later") -> list:
    """One experiment from its proposal to its verdict; None: it trains."""
    agent = "llm" if number else "baseline"
    commit = f"{number:x}".rjust(7, "c").ljust(40, "0")
    value = 1.7 - 0.01 * number if verdict != "crash" else None
    told: list = [
        ev.ProposalStarted(number=number, base="b" * 40, agent=agent, spec=1),
        ev.Proposed(
            number=number,
            commit=commit,
            hypothesis=hypothesis,
            expected_effect="a little",
            changes=(ev.Change("MATRIX_LR", "0.02", "0.04"),) if number else (),
        ),
        ev.TrialStarted(number=number, trial=1, device="cuda", seed=1, budget=300.0),
    ]
    if verdict is None:
        return told
    outcome = "crash" if verdict == "crash" else "ok"
    told.append(
        ev.TrialFinished(
            number=number,
            trial=1,
            outcome=outcome,
            value=value,
            wall_seconds=301.0,
            summary={"peak_vram_mb": 45056.0},
            reason="out of memory" if verdict == "crash" else "",
        )
    )
    told.append(ev.Decided(number=number, verdict=verdict, reason="because", value=value, delta=-0.01))
    return told
