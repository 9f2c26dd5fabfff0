"""Agents within the engine: what a turn costs and when a study ends for it, an endpoint that is gone, and repairs."""

import asyncio
import json
import shlex
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from models import KEY, Model, answer, refuse
from msgspec.structs import replace

from loop import events as ev
from loop.agents import make
from loop.archive import Archive
from loop.config import Asking, load
from loop.engine import Engine
from loop.journal import Journal, read
from loop.state import StudyState, Usage, fold
from loop.study import Study
from loop.workspace import Workspace
from tui import doctor, plain, report

USAGE = (1000, 400, 200)
STANDIN = Path(__file__).parents[2] / "standin" / "acp_agent.py"


def moving(search, replace, **more):
    edits = [{"path": "train.py", "search": search, "replace": replace}]
    idea = {"hypothesis": f"{search} -> {replace}", "expected_effect": "-0.01", "edits": edits}
    return answer(**{"think": "Hm.", "calls": [("propose", idea)], "usage": USAGE, **more})


RATE = moving("LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1")
DEEPER = moving("DEPTH = 4", "DEPTH = 8")
BROKEN = moving("WIDTH = 64", "WIDTH = 0")
MENDED = moving("WIDTH = 0", "WIDTH = 256")
MISSED = moving("NOWHERE = 1", "NOWHERE = 2")


def run_git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def settle(root, text):
    with (root / "labtop.toml").open("a") as settings:
        settings.write(f'sandbox = "off"\n{text}\n')


@asynccontextmanager
async def engine_of(root, spec, experiments=None, asking=None):
    config = load(root)
    study = Study(root=root, tag="t", config=config, device="cpu", budget=1.0, agent=spec, sandbox="off")
    journal = Journal(study.journal)
    agent = make(spec, asking=asking or config.asking)
    try:
        yield Engine(study, journal=journal, workspace=Workspace(root, "t"), agent=agent, experiments=experiments)
    finally:
        journal.close()


@asynccontextmanager
async def playing(root, monkeypatch, *answers, experiments=None):
    async with Model(*answers) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        async with engine_of(root, "openai:fake", experiments) as engine:
            yield engine, model


async def test_what_turns_cost_is_counted_told_and_journalled(repository, monkeypatch):
    settle(repository, "[asking]\nprices = { input = 1.0, output = 10.0 }")
    async with playing(repository, monkeypatch, RATE, MISSED, DEEPER, experiments=2) as (engine, _):
        await engine.run()
    state = engine.state
    used = state.usage["openai:fake"]
    assert (used.turns, used.requests, used.first, used.mended, used.unusable) == (2, 3, 1, 1, 0)
    assert used.tokens == 3600 and used.cost == pytest.approx(3 * 0.003) and not used.unpriced
    assert state.experiments[2].used.requests == 2 and state.used == used and used.first_share == 0.5
    assert fold(read(engine.study.journal)) == state and state.ran > 0
    for told in (plain.overview(state, alive=False), plain.summary(state), report.report(state, "")):
        assert "3.60 k tokens" in told and "0.009" in told
    assert "openai:fake" in report.report(state, "") and "50 %" in report.report(state, "")
    assert "3.60 k tokens" not in plain.overview(fold([]), alive=False)


async def test_a_server_that_tells_no_tokens_is_told_of_once_where_they_are_capped(repository, monkeypatch):
    settle(repository, "caps = { tokens = 2000 }")
    rate, deeper = moving("= 0.02", "= 0.1", usage=None), moving("DEPTH = 4", "DEPTH = 8", usage=None)
    async with playing(repository, monkeypatch, rate, deeper, experiments=2) as (engine, _):
        await engine.run()
    (warning,) = engine.state.warnings
    assert "openai:fake did not tell" in warning and "cap on tokens does not hold" in warning


async def test_a_cap_ends_the_study_after_the_experiment_under_way(repository, monkeypatch):
    settle(repository, "caps = { tokens = 2000, cost = 1 }\n[asking]\nprices = { input = 1.0 }")
    said = "cap is reached, 2,400 of 2,000 tokens"
    async with playing(repository, monkeypatch, RATE, DEEPER, MISSED) as (engine, _):
        await engine.run()
    state = engine.state
    assert said in state.mode_reason and "[tool.labtop.caps]" in state.mode_reason
    assert state.tried == 1 and all(one.stage in ("decided", "proposing") for one in state.experiments)
    (doubt,) = state.warnings
    assert "cap of 1.00 on cost" in doubt and "openai:fake" in doubt and "[tool.labtop.asking.prices]" in doubt
    async with playing(repository, monkeypatch, RATE) as (engine, model):
        await engine.run()
    assert said in engine.state.mode_reason and not model.bodies


async def test_while_the_endpoint_is_gone_the_study_waits_and_goes_on_by_itself(repository, monkeypatch):
    monkeypatch.setattr("loop.agents.openai.FOR_THE_SERVER", 0.01)
    settle(repository, "max_failures = 2\n[asking]\nattempts = 1")
    gone = refuse(503, "we are moving")
    async with playing(repository, monkeypatch, *[gone] * 7, RATE, experiments=1) as (engine, model):
        told = []
        engine.listen(lambda message: told.append(getattr(message, "event", None)))
        await engine.run()
    failures = [event for event in told if isinstance(event, ev.ProposalFailed)]
    assert len(failures) == 7 and all(event.away and "503: we are moving" in event.reason for event in failures)
    assert engine.state.experiments[1].verdict == "keep" and not engine.state.failures and not engine.state.away
    assert not [event for event in told if isinstance(event, ev.Paused)] and len(model.bodies) == 8


async def test_what_crashed_is_mended_within_its_experiment(repository, monkeypatch):
    settle(repository, "repairs = 1")
    async with playing(repository, monkeypatch, BROKEN, MENDED, experiments=1) as (engine, model):
        await engine.run()
    one = engine.state.experiments[1]
    assert one.verdict == "keep" and one.repairs == 1 and one.hypothesis == "WIDTH = 64 -> WIDTH = 0"
    assert [trial.outcome for trial in one.trials] == ["crash", "ok"] and one.counted_from == 2
    assert [change.new for change in one.changes] == ["256"]
    asked = model.bodies[1]["messages"][1]["content"]
    assert "ZeroDivisionError" in asked and "\n| " in asked and "WIDTH = 0" in asked and "attempt 1 of 1" in asked
    log = run_git(repository, "log", "--format=%s", "labtop/t", "-3").splitlines()
    assert log[0].startswith("0001, repair 1: WIDTH") and log[1].startswith("0001: WIDTH") and log[2] == "a study"
    assert "+WIDTH = 256" in engine.study.diff(1).read_text()
    assert fold(read(engine.study.journal)) == engine.state


async def test_a_repair_that_comes_to_nothing_leaves_a_crash(repository, monkeypatch):
    settle(repository, "repairs = 2\n[asking]\nmends = 0")
    async with playing(repository, monkeypatch, BROKEN, moving("WIDTH = 0", "WIDTH = -0"), MISSED, experiments=1) as (
        engine,
        _,
    ):
        await engine.run()
    one = engine.state.experiments[1]
    assert one.verdict == "crash" and "ZeroDivisionError" in one.reason and one.repairs == 2
    assert "0001 is not repaired: no usable proposal" in engine.state.warnings[-1]


async def test_a_patch_that_failed_before_comes_back_with_its_story(repository, monkeypatch):
    answers = (DEEPER, RATE, DEEPER, moving("STEPS = 5", "STEPS = 6"))
    async with playing(repository, monkeypatch, *answers, experiments=3) as (engine, model):
        await engine.run()
    assert [one.verdict for one in engine.state.experiments][:3] == ["keep", "discard", "keep"]
    last = json.dumps(model.bodies[3])
    assert "This very patch was tried" in last and "+DEPTH = 8" in last and "worse" in last
    assert engine.state.experiments[3].changes[0].name == "STEPS"
    archive, known = Archive(engine.study), engine.state.experiments
    before = StudyState(experiments=[replace(one, patch="") for one in known])  # As journals had it until then.
    for one in known[1:]:
        assert one.patch and archive.latest(before, one.patch).number == archive.latest(engine.state, one.patch).number


async def test_a_coding_agent_makes_an_experiment(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    (repository / "train.py").write_text(
        (repository / "train.py")
        .read_text()
        .replace("def main() -> None:", "def main() -> None:\n    print(dict(os.environ))")
    )
    run_git(repository, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qam", "tells what it has")
    settle(repository, "")
    step = ["replace", "train.py", "LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1"]
    script = tmp_path / "script.json"
    script.write_text(
        json.dumps([[step, ["write", "program.md", "x"], ["say", "HYPOTHESIS: faster\nEXPECTED: -0.05"]]])
    )
    spec = f"acp:{shlex.join([sys.executable, str(STANDIN), str(script), str(tmp_path / 'told')])}"
    async with engine_of(repository, spec, experiments=1) as engine:
        await asyncio.wait_for(engine.run(), 120)
    one = engine.state.experiments[1]
    assert one.verdict == "keep" and one.hypothesis == "faster" and one.agent == spec and one.used.tokens == 1200
    assert engine.state.usage[spec].first == 1 and engine.state.used != Usage()
    assert "put back" in engine.study.reasoning(1).read_text()
    for path in (repository / ".labtop").rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


async def test_a_permission_that_nobody_gives_is_refused_in_time_and_no_key_is_in_it(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", KEY)
    settle(repository, "approve = true\n[asking]\nturn = 0.05")
    script = tmp_path / "script.json"
    script.write_text(json.dumps([[["permission", "execute", KEY], ["die", "that was it"]]]))
    spec = f"acp:{shlex.join([sys.executable, str(STANDIN), str(script), str(tmp_path / 'told')])}"
    told = []
    async with engine_of(repository, spec, asking=Asking()) as engine:
        engine.listen(lambda message: told.append(getattr(message, "event", None)))
        engine.listen(lambda _: engine.state.last_failure and engine.stop(now=True))
        await asyncio.wait_for(engine.run(), 120)
    asked, answered = (event for event in told if isinstance(event, ev.Permission))
    assert asked.allowed is None and (answered.allowed, answered.by) == (False, "engine")
    assert asked.what.startswith("execute: execute [") and "[key]" in asked.what and KEY not in asked.what
    assert "[execute reject_once]" in engine.study.reasoning(1).read_text()
    assert fold(read(engine.study.journal)) == engine.state and not engine.state.asked


async def test_doctor_tries_the_agent_and_says_what_is_wrong(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    async def found(spec):
        return await asyncio.to_thread(lambda: [*doctor.agents(repository, spec)])

    async with Model(RATE, refuse(401, f"{KEY} is expired"), refuse(404, "no model fake")) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.url)
        there = await found("openai:fake")
        assert {finding.grade for finding in there} == {"ok", "limited"} and "calls tools" in there[1].what
        expired, unknown = await found("openai:fake"), await found("openai:fake")
    assert expired[0].grade == "missing" and "401: [key] is expired" in expired[0].what
    assert "set OPENAI_API_KEY" in expired[0].advice and "name another model" in unknown[0].advice
    assert "cannot be reached" in (await found("openai:fake"))[0].what
    script = tmp_path / "script.json"
    script.write_text("[[]]")
    assert "tiny 0.1 opens a session" in (await found(f"acp:{sys.executable} {STANDIN} {script} {script}.told"))[0].what
    assert "mend PATH" in (await found("acp:no-such-program"))[0].advice
    assert (await found(None))[0].what == "agent search: offline, no key needed"
