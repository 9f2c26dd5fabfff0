"""A person's commands on a real engine: undo, approve mode, an amended patch, breakpoints, notes."""

import subprocess

import pytest

from loop import breakpoints, commands
from loop.journal import read
from loop.state import fold


def git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


async def ask(engine, command, *, ok=True):
    reply = await engine.do(command)
    assert reply.ok == ok, reply.text
    return reply.text


async def latest(engine, until, verdict):
    """The latest experiment, when it ended in `verdict` and the study is held before the next."""
    while True:
        await until(lambda: engine.state.steps == 0 and engine.holding, "a gate")
        before, current = engine.state.before, engine.state.current
        last = engine.state.experiments[before.number] if before else None
        if last and last.number and last.verdict == verdict and current is None:
            return last
        await ask(engine, commands.Step())


async def test_what_was_kept_can_be_undone_with_all_that_stands_on_it(lab, until):
    async with lab.engine() as engine:
        await ask(engine, commands.Pause())
        kept = await latest(engine, until, "keep")
        before = engine.state.experiments[[e.verdict for e in engine.state.experiments[:-1]].index("keep")].commit
        earlier = [e for e in engine.state.experiments[:-1] if e.verdict == "keep"][-1]
        # One further experiment is made against it, and waits to be trained.
        await ask(engine, commands.Step())
        await until(lambda: engine.state.current and engine.state.current.stage == "proposed", "a proposal on it")
        follower = engine.state.current
        assert follower.base == kept.commit and before

        assert f"stands on {earlier.number:04d} again" in await ask(engine, commands.Undo(why="it only memorises"))
        undone = engine.state.experiments[kept.number]
        assert (undone.verdict, undone.reason, undone.by) == ("reject", "it only memorises", "person")
        assert engine.state.best.number == earlier.number
        assert git(lab.root, "rev-parse", "labtop/t") == earlier.commit
        assert git(lab.root, "rev-parse", f"refs/labtop/t/{kept.number:04d}") == kept.commit
        rows = engine.study.results.read_text().splitlines()[1:]
        assert rows[kept.number].split("\t")[3] == "reject"
        assert "no verdict to undo" in await ask(engine, commands.Undo(why="again"), ok=False)

        await ask(engine, commands.Step())
        await until(lambda: engine.state.experiments[follower.number].verdict, "what stood on it is given up")
        given_up = engine.state.experiments[follower.number]
        assert (given_up.verdict, given_up.by, given_up.trials) == ("reject", "engine", ())
        assert "no longer kept" in given_up.reason
        await ask(engine, commands.Resume())
        await until(lambda: len(engine.state.experiments) > follower.number + 1, "the study goes on")
        assert engine.state.experiments[follower.number + 1].base == earlier.commit
    assert fold(read(engine.study.journal)) == engine.state


async def test_what_was_rejected_by_mistake_is_run_again_from_the_start(lab, until):
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text() + "margin = 10.0\n")
    async with lab.engine() as engine:
        await ask(engine, commands.Pause())
        lost = await latest(engine, until, "discard")
        await ask(engine, commands.Step())
        await until(lambda: engine.state.current and engine.state.current.stage == "proposed", "the next is proposed")
        refused = await ask(engine, commands.Undo(why="the machine was busy"), ok=False)
        assert f"{lost.number + 1:04d} is under way" in refused

        await ask(engine, commands.Reject(why="a slip of the finger"))
        assert "is run again" in await ask(engine, commands.Undo(why="it was a slip"))
        again = engine.state.current
        assert again.number == lost.number + 1 and (again.stage, again.verdict) == ("proposed", None)
        await ask(engine, commands.Resume())
        await until(lambda: engine.state.experiments[again.number].verdict == "discard", "it is judged after all")
        assert [trial.outcome for trial in engine.state.experiments[again.number].trials] == ["ok"]
    assert fold(read(engine.study.journal)) == engine.state


async def test_a_keep_by_hand_that_is_undone_leaves_the_judges_verdict(lab, until):
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text() + "margin = 10.0\n")
    async with lab.engine() as engine:
        await ask(engine, commands.Pause())
        discarded = await latest(engine, until, "discard")
        await ask(engine, commands.Keep(why="I want it", number=discarded.number))
        await ask(engine, commands.Undo(why="I do not"))
        assert engine.state.experiments[discarded.number] == discarded and engine.state.incumbent == 0
        assert git(lab.root, "rev-parse", "labtop/t") == engine.state.experiments[0].commit


async def test_in_approve_mode_a_person_sees_amends_and_approves_each_patch(lab, until):
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text() + "approve = true\n")
    async with lab.engine() as engine:
        await until(lambda: engine.state.awaiting and engine.holding, "a proposal waits")
        waiting = engine.state.awaiting
        assert waiting.number == 1 and not waiting.trials and engine.state.mode == "running"
        assert "waits for approval" in await ask(engine, commands.Step(), ok=False)
        assert "it is 0001 that waits" in await ask(engine, commands.Approve(number=7), ok=False)

        wrong = "--- a/train.py\n+++ b/train.py\n@@ -1,1 +1,1 @@\n-no such line\n+another\n"
        assert "stays as it was" in await ask(engine, commands.Amend(diff=wrong), ok=False)
        frozen = "--- a/program.md\n+++ b/program.md\n@@ -1,1 +1,1 @@\n-Make it better.\n+Cheat.\n"
        assert "program.md is not an editable file" in await ask(engine, commands.Amend(diff=frozen), ok=False)
        assert engine.state.awaiting == waiting and waiting.commit

        source = (lab.root / "train.py").read_text().splitlines()
        at = next(index for index, line in enumerate(source) if line.startswith("LEARNING_RATE ="))
        # The counts of the hunk are wrong, as they are after an edit by hand.
        head = f"--- a/train.py\n+++ b/train.py\n@@ -{at},9 +{at},9 @@\n"
        mine = f"{head} {source[at - 1]}\n-{source[at]}\n+LEARNING_RATE = 0.0625\n {source[at + 1]}"
        await ask(engine, commands.Amend(diff=mine, number=1))
        amended = engine.state.awaiting
        assert amended.amended and amended.commit != waiting.commit and amended.changes[0].new == "0.0625"
        assert "+LEARNING_RATE = 0.0625" in engine.study.diff(1).read_text()
        assert git(lab.root, "rev-parse", "refs/labtop/t/0001") == amended.commit

        await ask(engine, commands.Approve(number=1))
        await until(lambda: engine.state.experiments[1].verdict, "it is trained and judged")
        assert "LEARNING_RATE = 0.0625" in git(lab.root, "show", f"{amended.commit}:train.py")
        await until(lambda: engine.state.awaiting and engine.state.awaiting.number == 2, "the next one waits too")
        await ask(engine, commands.Reject(why="no"))
        await until(lambda: engine.state.awaiting and engine.state.awaiting.number == 3, "and the one after that")
        await ask(engine, commands.Gate(on=False))
        await until(lambda: engine.state.experiments[3].verdict, "without the gate it trains")
    assert fold(read(engine.study.journal)) == engine.state


async def test_a_breakpoint_pauses_the_study_and_says_what_it_found(lab, until):
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text() + 'breakpoints = ["touches train.py"]\n')
    async with lab.engine() as engine:
        await until(lambda: engine.state.mode == "paused" and engine.holding, "it pauses before the first training")
        assert engine.state.mode_reason == "breakpoint 'touches train.py': 0001, it changes train.py"
        assert engine.state.current.stage == "proposed"
        assert "no breakpoint says" in await ask(engine, commands.Unbreak(condition="crash"), ok=False)
        assert "a breakpoint is" in await ask(engine, commands.Break(condition="whatever"), ok=False)
        await ask(engine, commands.Unbreak())
        await ask(engine, commands.Break(condition="num_steps  > 0"))
        assert engine.state.breakpoints == ("num_steps > 0",)
        await ask(engine, commands.Resume())
        await until(lambda: engine.state.mode == "paused" and engine.holding, "it pauses at the verdict")
        assert engine.state.mode_reason.startswith("breakpoint 'num_steps > 0': 0001, num_steps is ")
        assert engine.state.experiments[1].verdict and engine.state.current is None


async def test_a_note_stands_beside_its_experiment(lab, until):
    async with lab.engine() as engine:
        await until(lambda: engine.state.tried, "an experiment")
        await ask(engine, commands.Note(text="look at the curve", number=1))
        assert engine.state.experiments[1].notes == ("look at the curve",)
        assert "no experiment 0099" in await ask(engine, commands.Note(text="?", number=99), ok=False)


DIFF = "--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n LAYERS = 2\n-WIDTH = 3\n+WIDTH = 4\n x = LAYERS\n"


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        ("touches WIDTH", "it touches WIDTH: - WIDTH = 3"),
        ("touches LAYERS", None),
        ("touches WIDT", None),
        ("touches train.py", "it changes train.py"),
        ("touches a/train.py", "it changes a/train.py"),
        ("touches other.py", None),
        ("gain < noise", None),
    ],
    ids=str,
)
def test_what_a_breakpoint_finds_in_a_patch(condition, found):
    assert breakpoints.of_proposal(condition, DIFF) == found


@pytest.mark.parametrize("condition", ["", "touches", "gain", "gain < luck", "wide < noise", "gain = 3", "keep it"])
def test_a_condition_that_says_nothing_is_refused(condition):
    with pytest.raises(ValueError, match="a breakpoint is"):
        breakpoints.parse(condition)
