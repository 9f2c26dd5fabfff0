"""`labtop` as a person types it: real processes, a real engine in a process of its own, real exit statuses."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from loop.study import answers, socket_path
from tui import doctor, words
from tui.cli import main

PATIENCE = 600.0
"""Seconds that a process may take to end on a machine that is busy."""

COMMANDS = ("run", "attach", "status", "report", "pause", "resume", "step", "reject", "keep", "note", "stop", "doctor")


@pytest.fixture
def typed(repository, monkeypatch, capsys):
    """Types `labtop …` in this very process, on 80 columns; gives the exit status and what it wrote."""
    monkeypatch.chdir(repository)
    monkeypatch.setenv("COLUMNS", "80")

    def type_(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        wrote = capsys.readouterr()
        return ended.value.code, wrote.out, wrote.err

    return type_


def test_without_a_terminal_it_prints_a_line_per_event_and_sums_up_and_the_next_run_goes_on(labtop, repository):
    done = labtop("run", "--experiments", "8", "--tag", "t")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("study t on branch labtop/t: val_bpb, lower is better")
    for number in range(1, 9):
        assert sum(f"{number:04d} proposed: " in line for line in lines) == 1
        assert sum(f"{number:04d} {verdict}" in line for line in lines for verdict in ("KEEP", "DISCARD")) == 1
    summary = dict(line.split(maxsplit=1) for line in lines[-7:])
    assert summary["experiments"].startswith("8: ")
    assert "val_bpb" in summary["baseline"] and "#000" in summary["best"]
    gained = float(summary["gain"].split()[0])
    assert gained > 0 and summary["gain"].endswith("%)")
    assert float(summary["baseline"].split()[0]) - float(summary["best"].split()[0]) == pytest.approx(gained, abs=2e-4)
    assert "\x1b" not in done.stdout
    assert not any(line.startswith("?? .labtop") for line in git(repository, "status", "--porcelain").splitlines())
    done = labtop("run", "--experiments", "2")
    assert done.returncode == 0
    assert "0000 trains" not in done.stdout and "0010 proposed" in done.stdout
    assert "this run     2 experiments" in done.stdout and "experiments  10: " in done.stdout
    done = labtop("run", "--experiments", "1", "--budget", "7")
    assert done.returncode == 2 and "was opened with budget 1.0, not 7.0" in done.stderr


def test_commands_steer_a_running_engine(labtop, slow):
    run = labtop.begin("run", "--experiments", "3", "--tag", "t")
    labtop.training()
    assert "waits, at a step" in labtop("pause").stdout
    state = labtop.state()
    assert state["mode"] == "paused" and state["alive"]
    assert "PAUSED" in labtop("status").stdout
    assert labtop("resume").stdout == "the training goes on\n"
    assert labtop("note", "try fewer layers").returncode == 0
    rejected = labtop("reject", "--why", "it only memorises")
    assert rejected.returncode == 0 and "every process of it" in rejected.stdout
    state = labtop.until(lambda s: len(s["experiments"]) > 2, "the next experiment begins")
    assert state["experiments"][1]["verdict"] == "reject"
    assert state["experiments"][1]["reason"] == "it only memorises"
    assert state["notes"] == ["try fewer layers"]
    labtop.until(lambda s: s["current"] and s["current"]["number"] == 2 and s["current"]["stage"] == "training", "0002")
    assert labtop("step").stdout == "it finishes what it is at, and then waits\n"
    assert "ended" in labtop("stop", "--now").stdout
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0
    assert "REJECT by the person" in out and "stopped by a person" in out and "note: try fewer layers" in out
    assert "1 rejected" in out.splitlines()[-5] or "1 rejected" in out


def test_keep_overrules_the_judge(labtop, repository):
    (repository / "labtop.toml").write_text((repository / "labtop.toml").read_text() + "margin = 10.0\n")
    run = labtop.begin("run", "--experiments", "200", "--tag", "t")
    labtop.until(lambda s: s["counts"]["discard"], "an experiment is discarded")
    labtop("pause")
    labtop("reject", "--why", "only in the way")
    kept = labtop("keep", "1", "--why", "simpler")
    assert kept.returncode == 0, kept.stderr
    state = labtop.state()
    assert state["incumbent"] == 1 and state["experiments"][1]["reason"] == "simpler"
    assert git(repository, "rev-parse", "labtop/t") == state["experiments"][1]["commit"]
    assert labtop("keep", "999", "--why", "x").returncode == 1
    labtop("stop", "--now")
    run.communicate(timeout=PATIENCE)


def test_a_second_run_ctrl_c_and_a_killed_terminal_leave_the_engine_running(labtop, slow):
    run = labtop.begin("run", "--tag", "t")
    pid = labtop.training()["engine_pid"]
    done = labtop("run", "--tag", "t", "--budget", "9", "--experiments", "4")
    assert done.returncode == 1
    assert "runs study t already" in done.stderr and "--experiments, --budget cannot take effect" in done.stderr
    assert run.poll() is None
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130 and "the engine of t goes on" in said
    watcher = labtop.begin("attach")
    assert "0001" in watcher.stdout.readline() + watcher.stdout.readline()
    watcher.kill()
    watcher.communicate(timeout=PATIENCE)
    state = labtop.state()
    assert state["alive"] and state["engine_pid"] == pid and state["current"]["stage"] == "training"


def test_an_engine_that_is_killed_is_told_and_the_next_one_goes_on(labtop, slow):
    run = labtop.begin("run", "--experiments", "1", "--tag", "t")
    pid = labtop.training()["engine_pid"]
    os.kill(pid, signal.SIGKILL)
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1 and "`labtop run` goes on where it was" in out
    assert "NO ENGINE" in labtop("status").stdout
    again = labtop.begin("run", "--tag", "t", "--experiments", "1")
    state = labtop.until(lambda s: s["alive"] and s["engine_pid"] != pid, "the next engine")
    assert state["current"]["number"] == 1 and len(state["experiments"]) == 2
    assert labtop("reject", "--why", "enough").returncode == 0
    again.kill()
    again.communicate(timeout=PATIENCE)


def test_a_script_that_does_not_run_is_shown_and_nothing_hangs(labtop, edit_trainer):
    edit_trainer("def main() -> None:", "def main() -> None:\n    raise OSError('no such [/] corpus')")
    done = labtop("run", "--experiments", "5")
    assert done.returncode == 1
    assert "the unchanged script does not run" in done.stdout
    assert "          | OSError: no such [/] corpus" in done.stdout
    labtop.until(lambda s: not s["alive"], "the engine ended")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pause",), "start one with: labtop run"),
        (("attach",), "start one with: labtop run"),
        (("status",), "there is no study"),
        (("stop", "--tag", "gone"), "labtop run --tag gone"),
    ],
)
def test_without_an_engine_it_says_how_to_start_one(typed, words, said):
    status, _, err = typed(*words)
    assert status == 3 and said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--tag", "Not/A Tag"), "small letters, digits"),
        (("run", "--agent", "nobody"), "no agent is called 'nobody'"),
        (("run", "--budget", "-3"), "a number of seconds above 0"),
        (("run", "--experiments", "many"), "a whole number is wanted"),
        (("serve", "--port", "70000"), "a number up to 65535"),
        (("reject",), "--why"),
        (("reject", "--why", "  "), "words are wanted"),
        (("-C", "/", "run"), "is no labtop study"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(typed, words, said):
    status, _, err = typed(*words)
    assert status == 2 and said in err


def test_a_wrong_setting_is_named_with_its_line(labtop, repository):
    settings = (repository / "labtop.toml").read_text()
    (repository / "labtop.toml").write_text(settings + "buget = 3\n")
    done = labtop("run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    line = settings.count("\n") + 1
    assert f"labtop.toml:{line}: unknown key 'buget'; did you mean 'budget'?" in done.stderr


def test_two_engines_must_be_told_apart(labtop, slow):
    runs = [labtop.begin("run", "--tag", tag) for tag in ("one", "two")]
    for tag in ("one", "two"):
        labtop.until(lambda _, tag=tag: answers(socket_path(labtop.root, tag)), f"the engine of {tag} answers")
    done = labtop("pause")
    assert done.returncode == 2 and "say which with --tag" in done.stderr
    assert labtop("pause", "--tag", "two").returncode == 0
    for tag, run in zip(("one", "two"), runs, strict=True):
        labtop("stop", "--now", "--tag", tag)
        run.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen_and_shows_an_example(typed, command):
    status, out, _ = typed(*filter(None, [command]), "--help")
    lines = out.splitlines()
    assert status == 0 and len(lines) <= 24 and max(map(len, lines)) <= 80
    assert "example: labtop" in out


def test_the_command_line_and_the_cockpit_load_no_heavy_library():
    code = (
        "import sys, tui.cli, tui.plain, tui.app; "
        "print([m for m in ('torch', 'openai', 'git', 'optuna', 'tiktoken') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    code = "import sys, tui.cli; print('textual' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_doctor_says_what_is_there_and_what_to_do(labtop, repository, monkeypatch, capsys):
    done = labtop("doctor")
    assert done.returncode == 0 and done.stdout.endswith("ready\n")
    assert "'python train.py' edits train.py" in done.stdout and "sandbox " in done.stdout
    settings = (repository / "labtop.toml").read_text()
    (repository / "labtop.toml").write_text(settings + 'sandbox = "off"\n')
    assert [finding.what for finding in doctor.sandbox(repository)] == [
        "sandbox off: trials run as you, without a sandbox"
    ]
    (repository / "program.md").unlink()
    monkeypatch.setattr(doctor, "torch", doctor.python)  # To load it takes seconds.
    assert doctor.examine(repository) == 1
    told = capsys.readouterr().out
    assert "there is no file program.md" in told and told.endswith("see what is missing above\n")


def test_doctor_prints_a_unit_that_starts_this_very_engine(labtop, repository):
    unit = labtop("doctor", "--unit", "--tag", "night").stdout
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart=")).removeprefix("ExecStart=")
    engine = subprocess.Popen(shlex.split(command), cwd=repository, stdout=subprocess.PIPE, text=True)
    try:
        assert engine.stdout is not None and engine.stdout.readline() == "ready\n"
        assert labtop("status", "--tag", "night").returncode in (0, 3)
    finally:
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(PATIENCE) == 0


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def with_luck(root: Path, edit: Callable[[str, str], None], finding: str) -> None:
    """The stand-in's value has something of its seed, and an audit measures it."""
    luck = 'random.Random(os.environ["LABTOP_SEED"]).gauss(0, 0.004) + random.Random(f"{os.environ}").gauss(0, 0.0005)'
    (root / "audit.py").write_text(
        "import os\nfrom pathlib import Path\nvalue = Path(os.environ['LABTOP_HANDOVER'], 'model').read_text()\n"
        'print(f"val_bpb: {value}\\nholdout_bpb: {value}")\n'
        f'print("finding: {finding}\\naudit: amber")\n'
    )
    edit("    import math\n", "    import math\n    import random\n")
    edit("    for step in range(STEPS):", f"    loss += {luck}\n    for step in range(STEPS):")
    settings = (root / "labtop.toml").read_text().replace('"margin"', '"confirm"')
    settings += 'audit = "python audit.py"\nfrozen = ["audit.py"]\nreplicates = 3\n'
    (root / "labtop.toml").write_text(settings)
    git(root, "add", "audit.py")
    edit("SECONDS = 0.0", "SECONDS = 0.001")


def test_a_study_that_confirms_and_audits_says_how_well_it_knows(labtop, repository, edit_trainer):
    with_luck(repository, edit_trainer, finding=r"look [/] \x1b[2J at it")
    done = labtop("run", "--experiments", "3", "--tag", "t")
    assert done.returncode == 0, done.stderr
    assert "0000 trains for 1 s on cpu, seed 1337\n" in done.stdout
    assert "0000 trains again for 1 s on cpu, seed 1339\n" in done.stdout
    assert "its audit comes next\n" in done.stdout and "\x1b" not in done.stdout
    assert done.stdout.count(": look [/] at it\n") == done.stdout.count(" audited amber, ") > 5
    state = labtop.state()
    trials = sum(len(experiment["trials"]) for experiment in state["experiments"])
    summary = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[-9:])
    assert summary["noise"].startswith(f"σ {words.spread(state['noise']['sigma'])} over ")
    assert summary["audits"] == f"0 green, {trials} amber, 0 red" and "bpb" in summary["gain"]
    assert state["best"]["colour"] == "amber" and len(state["best"]["values"]) > 1 and state["measuring"] is None
    header, *rows = [line.split("\t") for line in (repository / ".labtop/t/results.tsv").read_text().splitlines()]
    assert header[-3:] == ["trials", "sigma", "audit"]
    assert rows[0][-3:] == [str(len(state["baseline"]["values"])), "", "amber"] and float(rows[1][-2]) > 0
