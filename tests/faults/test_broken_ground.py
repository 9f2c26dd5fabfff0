"""Full and read-only disks, flipped bits, clocks set back, locks: a clear message, and then a study that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import mortal
import msgspec
import pytest
from conftest import Ground, mounted

from loop import commands
from loop.engine import Engine
from loop.events import AnyEvent, Record, Resumed, TrialStarted
from loop.journal import Journal, JournalError, read
from loop.remote.client import Client, EngineGone
from loop.study import journal_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PATIENCE = 150.0


class Bench:
    """An engine in this process, on a study whose trainings can be held."""

    def __init__(self, ground: Ground, lab, until) -> None:
        self.ground, self.root, self.folder = ground, ground.root, journal_path(ground.root, "t").parent
        self._lab, self._until = lab, until
        self.hold = mortal.hold(ground.order)
        self.folder.mkdir(parents=True)

    def engine(self, experiments: int = 2):
        return self._lab.engine(experiments=experiments)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await self._until(condition, what, seconds=PATIENCE)

    async def until_it_trains(self, engine: Engine, number: int = 1) -> None:
        log = engine.study.log(number, 1)
        await self.until(lambda: log.exists() and log.stat().st_size, f"experiment {number} trains")

    async def until_it_pauses(self, engine: Engine) -> str:
        """Why it paused by itself."""
        await self.until(lambda: (engine.state.mode == "paused" and engine.holding) or engine.task.done(), "a pause")
        if engine.task.done():
            await engine.task
        assert engine.state.mode == "paused"
        return engine.state.mode_reason

    async def resume_to_the_end(self, engine: Engine) -> None:
        assert (await engine.do(commands.Resume())).ok
        await asyncio.wait_for(engine.task, PATIENCE)


@pytest.fixture
def bench(tmp_path, lab, until):
    ground = Ground(tmp_path / "ground")
    return Bench(ground, type(lab)(ground.root), until)


def fill(folder: Path) -> Path:
    """Take all the room that is left on the disk of `folder`. Returns the file that has it."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


async def use_up_the_page(engine: Engine, *to_come: AnyEvent) -> None:
    """Leave the journal, in the page that it has already, no more room than for `to_come`, by a note of that length.

    A few bytes more, since the digits of a time are not always as many.
    """
    journal = engine.study.journal
    spare = 32 + sum(len(msgspec.json.encode(Record(seq=9, time=time.time(), event=event))) + 16 for event in to_come)
    before = journal.stat().st_size
    await engine.do(commands.Note(text=""))
    frame = journal.stat().st_size - before
    await engine.do(commands.Note(text="x" * ((-journal.stat().st_size - frame - spare) % 4096)))


async def test_a_disk_that_is_full_when_a_result_is_journalled(bench, tmp_path):
    (tmp_path / "roomy").mkdir()
    with (
        mounted(bench.folder, "-t", "tmpfs", "-o", "size=400k", "tmpfs"),
        mounted(bench.folder / "experiments", "--bind", str(tmp_path / "roomy")),
    ):
        bench.hold.touch()
        (tmp_path / "roomy" / "0000").mkdir()
        async with bench.engine() as engine:
            await bench.until_it_trains(engine, 0)
            await use_up_the_page(engine)
            filler = fill(bench.folder)
            bench.hold.unlink()
            reason = await bench.until_it_pauses(engine)
            assert "the journal cannot be written" in reason and "free some space, and resume" in reason
            assert engine.state.current.stage == "training", "what was not journalled does not count"
            filler.unlink()
            await bench.resume_to_the_end(engine)
        assert bench.ground.check() == []


async def test_a_disk_that_has_no_room_left_for_the_pause_either(bench):
    """What comes first is a file of the trial; that the engine pauses then must still find room."""
    with mounted(bench.folder, "-t", "tmpfs", "-o", "size=800k", "tmpfs"):
        async with bench.engine() as engine:
            await engine.do(commands.Pause())
            while not (engine.state.current and engine.state.current.stage == "proposed"):
                await engine.do(commands.Step())
                await bench.until(lambda: engine.state.steps == 0 and engine.holding, "a gate")
            number = engine.state.current.number
            started = TrialStarted(number=number, trial=1, device="cpu", seed=1337, budget=1.0, sandbox="off")
            await use_up_the_page(engine, Resumed(), started)
            filler = fill(bench.folder)
            await engine.do(commands.Resume())
            reason = await bench.until_it_pauses(engine)
            assert "No space left on device" in reason and "resume" in reason
            assert engine.state.current.stage == "training"
            filler.unlink()
            await bench.resume_to_the_end(engine)
        assert bench.ground.check() == []


async def test_a_disk_that_is_full_under_a_trials_log(bench):
    with mounted(bench.folder / "experiments" / "0001", "-t", "tmpfs", "-o", "size=400k", "tmpfs"):
        bench.hold.touch()
        async with bench.engine() as engine:
            bench.hold.unlink()
            await bench.until(lambda: engine.state.incumbent is not None, "a baseline")
            bench.hold.touch()
            await bench.until_it_trains(engine)
            filler = fill(bench.folder / "experiments" / "0001")
            reason = await bench.until_it_pauses(engine)
            assert "No space left on device" in reason and "resume" in reason
            filler.unlink()
            bench.hold.unlink()
            await bench.resume_to_the_end(engine)
            assert engine.state.experiments[1].trial.outcome == "ok"
        assert bench.ground.check() == []


async def test_a_disk_that_is_full_when_a_proposal_is_committed(bench, tmp_path):
    repository = bench.root / ".git"
    repository.rename(tmp_path / "git")
    with mounted(repository, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
        shutil.copytree(tmp_path / "git", repository, dirs_exist_ok=True)
        async with bench.engine() as engine:
            await bench.until(lambda: engine.state.incumbent is not None, "a baseline")
            filler = fill(repository)
            reason = await bench.until_it_pauses(engine)
            assert "git" in reason and "No space left on device" in reason and "resume" in reason
            filler.unlink()
            await bench.resume_to_the_end(engine)
        assert bench.ground.check() == []


async def test_a_study_that_becomes_read_only(bench):
    async with bench.engine() as engine:
        await bench.until(lambda: engine.state.incumbent is not None, "a baseline")
        await engine.do(commands.Pause())
        await bench.until(lambda: engine.holding, "a gate")
        with mounted(bench.folder, "-o", "bind,ro", str(bench.folder)):
            await engine.do(commands.Resume())
            reason = await bench.until_it_pauses(engine)
            assert "Read-only file system" in reason and "resume" in reason
        await bench.resume_to_the_end(engine)
    assert bench.ground.check() == []


async def test_a_git_lock_that_another_process_holds(bench, monkeypatch):
    monkeypatch.setattr("loop.workspace.LOCK_PATIENCE", 1.0)
    async with bench.engine() as engine:
        await bench.until(lambda: engine.state.tried == 1, "a baseline and a discarded experiment")
        lock = bench.root / ".git/refs/heads/labtop/t.lock"
        lock.touch()
        reason = await bench.until_it_pauses(engine)
        assert str(lock.relative_to(bench.root)) in reason and "another git holds" in reason and "resume" in reason
        lock.unlink()
        await bench.resume_to_the_end(engine)
    assert bench.ground.check() == []


async def test_a_git_lock_that_a_dead_engine_left(bench):
    lock = bench.root / ".git/refs/heads/labtop/t.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    bench.ground.experiments = 0
    async with bench.engine(experiments=0) as engine:
        await asyncio.wait_for(engine.task, PATIENCE)
    assert any("refs/heads/labtop/t.lock" in warning for warning in engine.state.warnings)
    assert bench.ground.check() == []


async def test_a_clock_that_is_set_back_by_a_day(bench, lab, monkeypatch):
    ticks = itertools.count()

    def clock() -> float:
        return time.time() - (86400.0 if next(ticks) > 8 else 0.0)

    monkeypatch.setitem(type(lab).engine.__wrapped__.__globals__, "Journal", functools.partial(Journal, clock=clock))
    async with bench.engine() as engine:
        await asyncio.wait_for(engine.task, PATIENCE)
    times = [record.time for record in read(engine.study.journal)]
    assert next(ticks) > 8 and times == sorted(times)
    assert bench.ground.check() == []


async def test_a_socket_that_is_deleted_comes_back(lab, until):
    async with lab.engine() as engine:
        await until(lambda: engine.state.incumbent is not None, "a baseline", seconds=PATIENCE)
        lab.socket.unlink()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = await Client.connect(lab.socket)
                break
            except EngineGone:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        assert (await client.do(commands.Note(text="still there"))).ok
        await client.close()


def test_a_flipped_bit_is_always_found(workers, place):
    ground = Ground(place / "whole")
    workers.submit(mortal.finish, ground.order).result()
    data, records = journal_path(ground.root, "t").read_bytes(), read(journal_path(ground.root, "t"))
    path = place / "flipped" / "journal.jsonl"
    path.parent.mkdir()
    bits = random.Random(1).sample(range(8 * len(data)), min(20_000, 8 * len(data)))
    for turn, bit in enumerate(bits):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        line = data.count(b"\n", 0, bit // 8)
        assert read(path) == records[:line], f"bit {bit} of line {line + 1}"
        if turn % 50 == 0:
            assert opened(path, records), f"bit {bit} of line {line + 1}"

    start = len(data) - sum(map(len, data.splitlines(keepends=True)[-3:]))
    for cut in range(start, len(data)):
        path.write_bytes(data[:cut])
        assert opened(path, records[: data.count(b"\n", 0, cut)]), f"cut at byte {cut}"


def opened(path: Path, records: list) -> bool:
    """Whether a writer refuses the journal, or mends it to a prefix of `records` and tells so where it cut."""
    whole = path.read_bytes()
    try:
        journal = Journal(path)
    except JournalError:
        return path.read_bytes() == whole
    journal.close()
    return journal.records == records[: len(journal.records)] and bool(journal.repaired) == (path.read_bytes() != whole)


def test_two_engines_at_once(workers, place):
    ground = Ground(place / "ground")
    (_, pid, first), (code, _, second) = workers.submit(mortal.start_two, ground.order).result()
    assert first == "ready" and code == 1
    assert "\n" not in second and f"another engine (pid {pid}) runs this study" in second
    assert ground.check() == []


def test_an_engine_that_dies_with_its_trials_runner(workers, place):
    ground = Ground(place / "ground", experiments=0)
    workers.submit(mortal.finish, ground.order).result()
    ground.experiments = 1
    mortal.hold(ground.order).touch()
    workers.submit(mortal.kill_with_runner, ground.order).result()
    assert [trial.outcome for trial in mortal.state(ground.order).experiments[1].trials] == ["lost", "ok"]
    assert ground.check() == []
