"""The engine on real git, real processes and a stand-in trainer."""

import asyncio
import csv
import os
import subprocess
import threading
from pathlib import Path

import pytest

from loop import commands
from loop import events as ev
from loop.journal import Journal, JournalLocked, read
from loop.state import fold


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


async def test_a_study_improves_and_everything_about_it_is_on_disk(lab):
    status_before, head_before = git(lab.root, "status", "--porcelain"), git(lab.root, "rev-parse", "HEAD")
    async with lab.engine(experiments=6) as engine:
        await engine.task
    state, study = engine.state, engine.study
    assert state.tried == 6 and state.counts()["keep"] >= 1 and state.gain > 0
    assert fold(read(study.journal)) == state

    assert git(lab.root, "rev-parse", "labtop/t") == state.best.commit
    refs = git(lab.root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/labtop/t").splitlines()
    assert refs == [f"refs/labtop/t/{e.number:04d} {e.commit}" for e in state.experiments]

    rows = list(csv.DictReader(study.results.open(), delimiter="\t"))
    assert list(rows[0])[:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row["status"] for row in rows] == [e.verdict for e in state.experiments]
    for experiment in state.experiments[1:]:
        diff = study.diff(experiment.number).read_text()
        assert all(f"+{change.name} = {change.new}" in diff for change in experiment.changes)
        assert "val_bpb:" in study.log(experiment.number, 1).read_text()
        assert study.metrics(experiment.number, 1).read_text().count("\n") >= 3

    assert git(lab.root, "status", "--porcelain") == status_before
    assert git(lab.root, "rev-parse", "HEAD") == head_before


def slow(lab, seconds):
    lab.edit("SECONDS = 0.0", f"SECONDS = {seconds}")


def training(engine, number):
    current = engine.state.current
    return current is not None and current.number == number and current.stage == "training"


def trial_processes(root):
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(root).encode() in (process / "environ").read_bytes() and process.name != str(os.getpid()):
                found.append(process.name)
        except OSError:
            continue
    return found


async def test_reject_in_mid_training_ends_the_tree_and_goes_on(lab, until):
    slow(lab, 3.0)
    async with lab.engine() as engine:
        await until(lambda: training(engine, 1) and engine.lane.running, "experiment 1 trains")
        reply = await engine.do(commands.Reject(why="no"))
        assert reply.ok and not trial_processes(engine.study.trial(1, 1))
        rejected = engine.state.experiments[1]
        assert (rejected.verdict, rejected.reason, rejected.by) == ("reject", "no", "person")
        await until(lambda: training(engine, 2), "experiment 2 trains")
        assert engine.state.experiments[1].trial.outcome == "killed"
        assert engine.state.incumbent == 0


async def test_pause_stops_the_training_and_resume_ends_it(lab, until):
    slow(lab, 1.5)
    async with lab.engine(experiments=1) as engine:
        await until(lambda: training(engine, 1), "experiment 1 trains")
        assert "budget clock stopped" in (await engine.do(commands.Pause())).text
        assert engine.state.mode == "paused" and engine.state.current.trial.paused
        log = engine.study.log(1, 1)
        size = log.stat().st_size
        await asyncio.sleep(0.8)
        assert log.stat().st_size == size
        assert (await engine.do(commands.Resume())).ok
        await engine.task
    assert engine.state.experiments[1].trial.outcome == "ok"


async def test_step_passes_one_gate_at_a_time(lab, until):
    async with lab.engine() as engine:
        await engine.do(commands.Pause())
        assert engine.state.mode == "paused"
        # A training that the pause met in the middle is let to its end; from then on every step starts at a gate.
        await engine.do(commands.Step())
        seen = []
        for _ in range(6):
            await until(lambda: engine.state.steps == 0 and engine.holding, "it waits at a gate")
            before = engine.state.current.stage if engine.state.current else "decided"
            await engine.do(commands.Step())
            await until(lambda: engine.state.steps == 0 and engine.holding, "the step is used")
            seen.append((before, engine.state.current.stage if engine.state.current else "decided"))
        cycle = [("decided", "proposed"), ("proposed", "trained"), ("trained", "decided")]
        first = cycle.index(seen[0])
        assert seen == (cycle * 3)[first : first + 6]
        assert engine.state.mode == "paused"


async def test_a_discarded_experiment_can_be_kept_by_hand(lab, until):
    async with lab.engine() as engine:
        await until(lambda: engine.state.counts()["discard"] >= 1, "a discard")
        await engine.do(commands.Pause())
        # A kept one moves the incumbent, and only what was measured against that can be kept: step to a fresh discard.
        while True:
            await until(lambda: engine.state.steps == 0 and engine.holding, "a gate")
            latest = engine.state.experiments[-1]
            if latest.verdict == "discard":
                break
            await engine.do(commands.Step())
        reply = await engine.do(commands.Keep(why="I want it"))
        assert reply.ok and f"kept {latest.number:04d}" in reply.text
        kept = engine.state.best
        assert (kept.number, kept.verdict, kept.reason, kept.by) == (latest.number, "keep", "I want it", "person")
        assert git(lab.root, "rev-parse", "labtop/t") == kept.commit
        await engine.do(commands.Resume())
        await until(lambda: len(engine.state.experiments) > kept.number + 1, "the next proposal")
        assert engine.state.experiments[kept.number + 1].base == kept.commit


async def test_what_was_not_measured_or_is_the_incumbent_cannot_be_kept(lab, until):
    async with lab.engine() as engine:
        await until(lambda: engine.state.incumbent is not None, "a baseline")
        await engine.do(commands.Pause())
        reply = await engine.do(commands.Keep(why="I want it", number=engine.state.incumbent))
        assert not reply.ok and "already" in reply.text
        assert not (await engine.do(commands.Keep(why="?", number=99))).ok


async def test_program_edits_are_versions_that_experiments_carry(lab, until):
    async with lab.engine() as engine:
        await until(lambda: engine.state.tried >= 1, "a first experiment")
        (lab.root / "program.md").write_text("Make it better, and simpler.\n")
        await until(lambda: engine.state.spec == 2, "the new version is seen")
        await until(lambda: engine.state.experiments[-1].spec == 2, "an experiment carries it")
    assert engine.study.spec(1).read_text() != engine.study.spec(2).read_text()


async def test_a_crash_is_a_verdict_with_its_reason(lab):
    path = lab.root / "train.py"
    path.write_text(path.read_text().replace("def main() -> None:", "def main() -> None:\n    assert WIDTH < 128"))
    git(lab.root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "brittle")
    async with lab.engine(experiments=6) as engine:
        await engine.task
    crashed = [e for e in engine.state.experiments if e.verdict == "crash"]
    assert crashed and "AssertionError" in crashed[0].reason and engine.state.tried == 6


async def test_a_stopped_engine_goes_on_where_it_was(lab, until):
    slow(lab, 2.0)
    async with lab.engine() as engine:
        await until(lambda: training(engine, 1), "experiment 1 trains")
    assert engine.state.mode == "stopped" and engine.state.current.number == 1
    async with lab.engine(experiments=1) as engine:
        await engine.task
    first = engine.state.experiments[1]
    assert [trial.outcome for trial in first.trials] == ["killed", "ok"] and first.verdict in ("keep", "discard")
    assert len(engine.state.experiments) == 2


async def test_two_engines_on_one_study_are_refused(lab):
    async with lab.engine():
        with pytest.raises(JournalLocked, match="another engine"):
            async with lab.engine():
                pass


class Silent:
    """An agent that thinks for ever."""

    name, repairs = "silent", False

    async def propose(self, briefing, desk):
        await asyncio.sleep(3600)
        yield


async def test_to_stop_in_the_moment_before_a_turn_does_not_wait_for_its_end(lab, monkeypatch):
    append, asked, given = Journal.append, threading.Event(), threading.Event()

    def slowly(journal, *happened):
        records = append(journal, *happened)
        if any(isinstance(event, ev.ProposalStarted) and event.number == 1 for event in happened):
            asked.set()
            given.wait(60)
        return records

    monkeypatch.setattr(Journal, "append", slowly)
    async with lab.engine(agent=Silent()) as engine:
        await asyncio.to_thread(asked.wait, 60)
        assert (await engine.do(commands.Stop(now=True))).ok
        given.set()
        await asyncio.wait_for(asyncio.shield(engine.task), 60)
    assert engine.state.mode == "stopped" and engine.state.current.number == 1
