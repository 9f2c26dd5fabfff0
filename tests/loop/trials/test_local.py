"""Trials as real processes: what ends, what lives on, what they are told, and what is told of them."""

import asyncio
import contextlib
import json
import os
import pickle
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loop.events import LogLines, Step
from loop.trials import local, runner
from loop.trials.local import LocalTrial, TrialSpec
from loop.trials.sandbox import choose

MEASURE = "print('---'); print('val_bpb: 1.25'); print('peak_vram_mb: 512.0')"
TREE = """
import os, signal, subprocess, sys, time
stubborn = '''
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pids/%d" % os.getpid(), "w").close()
time.sleep(600)
'''
os.makedirs("pids", exist_ok=True)
subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
subprocess.Popen([sys.executable, "-c", f"import os, subprocess, sys; os.setsid(); "
                  f"subprocess.Popen([sys.executable, '-c', {stubborn!r}], start_new_session=True, env={{}})"])
open("pids/%d" % os.getpid(), "w").close()
while len(os.listdir("pids")) < 3:
    time.sleep(0.01)
print("ready", flush=True)
"""


class Bench:
    """Makes trials of scripts, each in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def spec(self, script: str | None = None, *, name: str = "trial", **fields) -> TrialSpec:
        folder = self.root / name
        source = folder / "source"
        source.mkdir(parents=True)
        if script is not None:
            (source / "train.py").write_text(script)
        given = {"command": "python train.py", "timeout": 120.0, "silence": 300.0, "environment": {}, **fields}
        # Without walls, so that a process has one number inside and outside; test_sandbox.py has the rest.
        given = {"sandbox": "off", "memory": 2**34, "disk": 2**30, "processes": 500, **given}
        return TrialSpec(
            number=3,
            trial=1,
            metric="val_bpb",
            device="cpu",
            seed=7,
            budget=5.0,
            **given,
            source=source,
            folder=folder,
            log=self.root / f"{name}.log",
            metrics=self.root / f"{name}.jsonl",
        )

    async def run(self, script: str | None = None, **fields):
        trial = await LocalTrial.launch(self.spec(script, **fields))
        messages = [message async for message in trial.follow()]
        return trial.result(), messages


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    for pid in tmp_path.glob("*/source/pids/*"):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid.name}/cwd").readlink().is_relative_to(tmp_path):
                os.kill(int(pid.name), signal.SIGKILL)


def state(pid: int) -> str:
    """The kernel's letter for a process; X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def alive(pid: int) -> bool:
    return state(pid) not in "ZX"


def pids(spec: TrialSpec) -> list[int]:
    return [int(path.name) for path in (spec.source / "pids").glob("*")]


def said(spec: TrialSpec, word: str) -> bool:
    return spec.log.exists() and word in spec.log.read_text().split()


def runner_of(spec: TrialSpec) -> int:
    return json.loads((spec.folder / "started.json").read_text())["runner"]


async def follow(trial: LocalTrial):
    async for _ in trial.follow():
        pass
    return trial.result()


async def test_a_measured_trial_tells_its_value_steps_and_lines(bench):
    result, messages = await bench.run(
        "for n in range(3): print(f'\\rstep {n} ({n}0.0%) | loss: {3 - n}.5', end='')\nprint()\n" + MEASURE
    )
    assert (result.outcome, result.value, result.exit_code, result.reason) == ("ok", 1.25, 0, "")
    assert result.summary == {"val_bpb": 1.25, "peak_vram_mb": 512.0} and result.wall_seconds > 0
    steps = [message for message in messages if isinstance(message, Step)]
    assert [(step.number, step.step, step.loss, step.progress) for step in steps] == [
        (3, 0, 3.5, 0.0),
        (3, 1, 2.5, pytest.approx(0.1)),
        (3, 2, 1.5, pytest.approx(0.2)),
    ]
    lines = [line for message in messages if isinstance(message, LogLines) for line in message.lines]
    assert lines == ["---", "val_bpb: 1.25", "peak_vram_mb: 512.0"]
    assert (bench.root / "trial.jsonl").read_bytes().count(b"\n") == 3


async def test_the_summary_behind_a_long_log_is_found(bench):
    result, messages = await bench.run(f"for n in range(90_000): print('x' * 99)\n{MEASURE}")
    assert (result.outcome, result.value) == ("ok", 1.25)
    assert sum(len(message.lines) for message in messages if isinstance(message, LogLines)) == 90_003


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("val_bpb: nan", "val_bpb is nan"),
        ("val_bpb: inf", "val_bpb is inf"),
        ("val_bpb: 1.5\\nval_bpb: 1.2", "more than once: 1.5, 1.2"),
        ("something", "printed no val_bpb"),
    ],
)
async def test_what_is_no_measurement_is_a_crash_that_says_why(bench, printed, reason):
    result, _ = await bench.run(f"print('{printed}')")
    assert (result.outcome, result.value) == ("crash", None) and reason in result.reason


async def test_a_last_line_without_its_end_counts(bench):
    result, messages = await bench.run("import sys\nsys.stdout.write('---\\nval_bpb: 1.5')")
    assert (result.outcome, result.value) == ("ok", 1.5)
    assert [message.lines for message in messages][-1][-1] == "val_bpb: 1.5"


async def test_the_same_value_twice_is_a_measurement(bench):
    result, _ = await bench.run("print('val_bpb: 1.5\\nval_bpb: 1.5')")
    assert (result.outcome, result.value) == ("ok", 1.5)


async def test_a_crash_tells_its_status_and_last_words(bench):
    result, _ = await bench.run("print('val_bpb: 1.0')\nraise ValueError('heads do not divide the width')")
    assert (result.outcome, result.value, result.exit_code) == ("crash", None, 1)
    assert result.reason == "exit status 1: ValueError: heads do not divide the width"


async def test_a_signal_from_outside_is_named(bench):
    result, _ = await bench.run("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert result.outcome == "crash" and "SIGKILL" in result.reason and "memory" in result.reason


async def test_a_command_that_does_not_exist_is_a_crash_by_name(bench):
    result, messages = await bench.run(command="no-such-trainer --fast")
    assert result.outcome == "crash" and result.reason.startswith("no-such-trainer: No such file")
    assert not messages


async def test_secrets_never_reach_a_trial_and_what_is_declared_does(bench, monkeypatch):
    for name in ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "MY_PASSWORD", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "sesame-4711")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    spec = bench.spec(
        "import json, os\njson.dump(dict(os.environ), open('env.json', 'w'))\n" + MEASURE, environment={"DATA": "/data"}
    )
    assert (await follow(await LocalTrial.launch(spec))).outcome == "ok"
    got = json.loads((spec.source / "env.json").read_text())
    assert not [name for name, value in got.items() if "sesame" in value] and "PYTHONPATH" not in got
    told = {name: got.get(name) for name in ("DATA", "CUDA_VISIBLE_DEVICES", "LABTOP_SEED", "LABTOP_DEVICE")}
    assert told == {"DATA": "/data", "CUDA_VISIBLE_DEVICES": "1", "LABTOP_SEED": "7", "LABTOP_DEVICE": "cpu"}
    assert float(got["LABTOP_BUDGET"]) == 5.0 and Path(got["LABTOP_CONTROL"]).is_dir()
    for path in spec.folder.glob("*.json"):
        assert "sesame" not in path.read_text()


async def test_kill_ends_the_whole_tree_however_it_hides(bench, until):
    spec = bench.spec(TREE + "time.sleep(600)")
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "ready"), "the tree stands")
    tree = pids(spec)
    assert len(tree) == 3 and all(map(alive, tree))
    await trial.kill("rejected: no")
    assert not [pid for pid in tree if alive(pid)]
    result = await following
    assert (result.outcome, result.value, result.reason) == ("killed", None, "rejected: no")


async def test_what_a_trial_leaves_behind_is_ended_with_it(bench):
    spec = bench.spec(TREE + MEASURE)
    result = await follow(await LocalTrial.launch(spec))
    assert (result.outcome, result.value) == ("ok", 1.25)
    assert len(pids(spec)) == 3 and not [pid for pid in pids(spec) if alive(pid)]


async def test_a_trial_past_its_time_is_ended(bench):
    spec = bench.spec("import time\nprint('val_bpb: 1.0', flush=True)\ntime.sleep(600)", timeout=0.5)
    result = await follow(await LocalTrial.launch(spec))
    assert (result.outcome, result.value) == ("timeout", None) and "not done after" in result.reason


async def test_a_runner_that_is_shot_loses_its_trial_and_leaves_nothing(bench, until):
    # What hides its environment can only be found by a living runner: this tree is an ordinary one, but stubborn.
    spec = bench.spec(TREE.replace(", env={{}}", "") + "time.sleep(600)")
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "ready") and (spec.folder / "started.json").exists(), "the tree stands")
    os.kill(runner_of(spec), signal.SIGKILL)
    result = await following
    assert (result.outcome, result.value) == ("lost", None) and "runner" in result.reason
    await until(lambda: not any(map(alive, pids(spec))), "the tree has ended")


ENGINE = """
import asyncio, os, pickle, signal, sys
from loop.trials.local import LocalTrial
spec = pickle.load(sys.stdin.buffer)
async def main():
    trial = await LocalTrial.launch(spec)
    async for message in trial.follow():
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def launch_and_die(spec: TrialSpec, code: str = ENGINE) -> None:
    """An engine that is shot as soon as it has heard of its trial."""
    engine = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdin=subprocess.PIPE)
    await engine.communicate(pickle.dumps(spec))
    assert engine.returncode == -signal.SIGKILL


async def test_a_trial_goes_on_without_its_engine_and_is_adopted(bench, until):
    spec = bench.spec(
        "import os, time\nprint('step 0 | loss: 3.0', flush=True)\n"
        "while not os.path.exists('go'): time.sleep(0.01)\nprint('step 1 | loss: 2.0')\n" + MEASURE
    )
    await launch_and_die(spec)
    trial = await LocalTrial.adopt(spec)
    assert alive(runner_of(spec)) and not (spec.folder / "exit.json").exists()
    (spec.source / "go").touch()
    messages = [message async for message in trial.follow()]
    assert (trial.result().outcome, trial.result().value) == ("ok", 1.25)
    assert [message.step for message in messages if isinstance(message, Step)] == [0, 1]
    assert spec.metrics.read_bytes().count(b"\n") == 2


async def test_a_trial_that_ended_without_an_engine_is_adopted_too(bench, until):
    spec = bench.spec(f"print('step 0 | loss: 3.0', flush=True)\nprint('x' * 100 + '\\n', end='')\n{MEASURE}")
    await launch_and_die(spec)
    await until(lambda: (spec.folder / "exit.json").exists(), "the trial ends by itself")
    result = await follow(await LocalTrial.adopt(spec))
    assert (result.outcome, result.value, result.exit_code) == ("ok", 1.25, 0)


async def test_an_adopted_trial_can_be_killed(bench):
    spec = bench.spec(TREE + "time.sleep(600)")
    await launch_and_die(spec)
    trial = await LocalTrial.adopt(spec)
    following = asyncio.create_task(follow(trial))
    await trial.kill("stopped")
    assert not [pid for pid in pids(spec) if alive(pid)]
    assert ((await following).outcome, trial.result().reason) == ("killed", "stopped")


async def test_a_trial_is_adopted_though_its_engine_died_right_behind_the_launch(bench):
    spec = bench.spec("import os\nopen('runs', 'a').write('x')\n" + MEASURE)
    await launch_and_die(spec, ENGINE.replace("async for message in trial.follow():", "if trial:"))
    trial = await LocalTrial.adopt(spec)
    assert trial is not None, "a second runner would start beside the first"
    assert ((await follow(trial)).outcome, (spec.source / "runs").read_text()) == ("ok", "x")


async def test_another_process_under_the_runners_number_is_not_the_runner(bench):
    spec = bench.spec(MEASURE)
    (spec.folder / "started.json").write_text(json.dumps({"runner": os.getpid(), "start_time": 1, "time": 0.0}))
    (spec.folder / "spec.json").write_text(json.dumps({"cookie": "nobody's"}))
    result = await follow(await LocalTrial.adopt(spec))
    assert (result.outcome, result.value) == ("lost", None)


async def test_a_trial_that_never_started_is_not_adopted(bench):
    assert await LocalTrial.adopt(bench.spec(MEASURE)) is None


COOPERATIVE = f"""
import os, pathlib, time
control = pathlib.Path(os.environ["LABTOP_CONTROL"])
(control / "clock.json").write_text("{{}}")
for step in range(10**9):
    while (control / "pause").exists():
        (control / "paused").touch()
        time.sleep(0.005)
    (control / "paused").unlink(missing_ok=True)
    print(f"step {{step}} | loss: 1.0", flush=True)
    time.sleep(0.005)
    if os.path.exists("go"):
        break
{MEASURE}
"""


async def test_a_script_with_our_clock_pauses_at_a_step_and_is_not_charged(bench, until):
    spec = bench.spec(COOPERATIVE)
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "loss:"), "it steps")
    assert await trial.pause() is True
    size, waits = spec.log.stat().st_size, spec.folder / "control" / "paused"
    enough = waits.stat().st_mtime + 5 * runner.POLL
    await until(lambda: waits.stat().st_mtime > enough, "it waits, lives, and its runner has looked")
    assert spec.log.stat().st_size == size and not following.done()
    await trial.resume()
    await until(lambda: spec.log.stat().st_size > size, "it steps again")
    (spec.source / "go").touch()
    assert ((await following).outcome, trial.result().value) == ("ok", 1.25)
    assert json.loads((spec.folder / "exit.json").read_text())["paused_seconds"] > 0


async def test_a_script_without_a_clock_is_frozen_with_its_whole_tree(bench, until):
    spec = bench.spec(TREE + f"while not os.path.exists('go'): time.sleep(0.01)\n{MEASURE}")
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "ready"), "the tree stands")
    assert await trial.pause() is False
    await until(lambda: [state(pid) for pid in pids(spec)] == ["T"] * 3, "the kernel has stopped every process")
    (spec.source / "go").touch()
    assert not following.done()
    await trial.resume()
    assert ((await following).outcome, trial.result().value) == ("ok", 1.25)


async def test_a_frozen_trial_can_be_killed(bench, until):
    spec = bench.spec(TREE + "time.sleep(600)")
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "ready"), "the tree stands")
    assert await trial.pause() is False
    await trial.kill("enough")
    assert not [pid for pid in pids(spec) if alive(pid)]
    assert (await following).outcome == "killed"


async def test_a_pause_of_a_trial_that_ends_meanwhile_returns(bench, until):
    spec = bench.spec(COOPERATIVE.replace("touch()", "with_name('paused')"))  # It stops its clock and never says so.
    trial = await LocalTrial.launch(spec)
    await until(lambda: said(spec, "loss:"), "it steps")
    pausing = asyncio.create_task(trial.pause())
    await until((spec.folder / "control" / "pause").exists, "the wish is there")
    assert not pausing.done()
    await trial.kill("enough")
    assert await asyncio.wait_for(pausing, 60) in (True, False)
    assert (await follow(trial)).outcome == "killed"


async def test_a_program_with_arguments_and_blanks_runs_as_a_shell_would_split_it(bench):
    spec = bench.spec("import sys\nprint(sys.argv[1:])\n" + MEASURE, command="python train.py --name 'a b' c")
    assert (await follow(await LocalTrial.launch(spec))).outcome == "ok"
    assert shlex.split("--name 'a b' c") == eval(spec.log.read_text().splitlines()[0])


LEAPING = """
import os, sys, time
sys.path.insert(0, {folder!r})
import runner
real, looks = time.monotonic, []
def monotonic():
    if not os.path.exists({leap!r}):
        return real()
    looks.append(real())
    if len(looks) == 2:
        open({seen!r}, "w").close()
    return looks[-1] + 100_000
runner.time.monotonic = monotonic
runner.run(sys.argv[1])
"""


@pytest.fixture
def a_day_passes(tmp_path, monkeypatch, until):
    """Call it, and the clock of every runner leaps by more than a day; returns once that was reckoned with."""
    leap, seen, leaping = tmp_path / "leap", tmp_path / "seen", tmp_path / "leaping.py"
    leaping.write_text(LEAPING.format(folder=str(Path(runner.__file__).parent), leap=str(leap), seen=str(seen)))
    monkeypatch.setattr(runner, "__file__", str(leaping))

    async def passes():
        leap.touch()
        await until(seen.exists, "the runner looks at its clock")

    return passes


@pytest.mark.parametrize("control", ['os.environ["LABTOP_CONTROL"]', '"nowhere"'], ids=["by its clock", "frozen"])
async def test_a_day_of_pause_is_not_charged_to_the_time_out(bench, until, a_day_passes, control):
    spec = bench.spec(COOPERATIVE.replace('os.environ["LABTOP_CONTROL"]', control))
    (spec.source / "nowhere").mkdir()
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "loss:"), "it steps")
    assert await trial.pause() is ("LABTOP" in control)
    await a_day_passes()
    await trial.resume()
    (spec.source / "go").touch()
    assert ((await following).outcome, trial.result().value) == ("ok", 1.25)
    assert json.loads((spec.folder / "exit.json").read_text())["paused_seconds"] > 90_000


async def test_a_day_of_training_is(bench, until, a_day_passes):
    spec = bench.spec(COOPERATIVE)
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "loss:"), "it steps")
    await a_day_passes()
    assert (await following).outcome == "timeout"


async def test_a_log_that_fills_the_disk_ends_its_trial(bench, monkeypatch):
    monkeypatch.setattr(local, "LOG_LIMIT", 2 << 20)
    result, _ = await bench.run("print('val_bpb: 1.0')\nwhile True: print('x' * 1000)")
    assert (result.outcome, result.value) == ("crash", None) and "more than 2 MiB" in result.reason


async def test_an_environment_inside_the_hidden_repository_is_seen_and_nothing_else_of_it(bench, kind):
    repository = Path(sys.prefix).parent
    script = f"import os, msgspec\ntry: print(os.path.exists({str(repository / 'README.md')!r}) and "
    script += f"open({str(repository / 'README.md')!r}).read())\nexcept PermissionError: print(False)\n{MEASURE}"
    spec = bench.spec(script, sandbox=kind, hidden=(repository,))
    assert (await follow(await LocalTrial.launch(spec))).outcome == "ok", spec.log.read_text()
    assert spec.log.read_text().splitlines()[0] == "False"


async def test_a_trial_starts_from_what_the_baseline_compiled_and_from_nobody_elses(bench):
    planting = "import os, pathlib\nmade = pathlib.Path(os.environ['TORCHINDUCTOR_CACHE_DIR'])\n" + (
        "print([path.name for path in made.glob('*')])\nmade.mkdir(exist_ok=True)\n(made / '{}').touch()\n" + MEASURE
    )
    walled = {"sandbox": choose("auto"), "compiled": bench.root / "compiled"}
    for name, found in (("baseline", "[]"), ("first", "['baseline']"), ("second", "['baseline']")):
        spec = bench.spec(planting.format(name), name=name, baseline=name == "baseline", **walled)
        assert (await follow(await LocalTrial.launch(spec))).outcome == "ok"
        assert spec.log.read_text().splitlines()[0] == found


async def test_a_trial_is_never_run_twice(bench, until):
    spec = bench.spec(COOPERATIVE)
    trial = await LocalTrial.launch(spec)
    following = asyncio.create_task(follow(trial))
    await until(lambda: said(spec, "loss:"), "it steps")
    again = [sys.executable, "-I", "-S", runner.__file__, str(spec.folder)]
    second = await asyncio.to_thread(subprocess.run, again, capture_output=True, text=True)
    assert second.returncode and "runs already" in second.stderr
    (spec.source / "go").touch()
    assert (await following).outcome == "ok"
    before = spec.log.read_bytes()
    third = await asyncio.to_thread(subprocess.run, again, capture_output=True, text=True)
    assert third.returncode and "was run before" in third.stderr
    assert spec.log.read_bytes() == before
