"""The study of error recycling in the real loop: a repository made, an experiment trained, its drift measured."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from loop import journal
from loop.state import fold
from loop.study import journal_path
from video_recycle import tiny
from video_recycle.lora import add_lora
from video_recycle.study import audit, harness
from video_recycle.study.make import make
from video_recycle.world import LATENT


def changed(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.slow
def test_an_agent_improves_the_recycling_and_frozen_code_measures_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LABTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    root = tmp_path / "study"
    make(root)
    changed(root / "labtop.toml", "budget = 25 ", 'policy = "margin"\nbudget = 0.5 ')
    changed(root / "video_recycle/study/harness.py", "CLIPS, SCENES = 50, 16", "CLIPS, SCENES = 3, 2")
    peeking = "    from video_recycle.study.harness import held_out\n    print('starts:', held_out())\n"
    seeded = "    torch.manual_seed(SEED)\n"
    changed(root / "video_recycle/study/train.py", seeded, peeking + seeded)
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    subprocess.run(["git", *who, "commit", "-qam", "small"], cwd=root, check=True)
    words = ["run", "--tag", "t", "--experiments", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "tui.cli", *words]
    done = subprocess.run(command, cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    baseline, experiment = fold(journal.read(journal_path(root, "t"))).experiments
    assert experiment.changes and experiment.changes[0].name == "IMAGE"
    held_out = int((tmp_path / "cache/locked/drift-starts").read_text())
    for tried in (baseline, experiment):
        # The trial looked for what the starts are drawn with, and found something else.
        assert tried.trial.summary["starts"] != held_out
        assert tried.colour == "green" and tried.trial.summary["bank_entries"] > 0, done.stdout
        assert tried.trial.summary["training_seconds"] >= 0.5
        folder = root / ".labtop/t/experiments" / f"{tried.number:04d}"
        assert "drift:" not in (folder / "trial-1.log").read_text()
        assert f"drift:                {tried.value:.6f}" in (folder / "trial-1.audit.log").read_text()


@pytest.mark.parametrize("what", ["none", "a link", "no weights", "of another model", "not finite"])
def test_weights_that_are_none_are_red_and_measured_by_nothing(what, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LABTOP_HANDOVER", str(tmp_path))
    weights, path = harness.whole(tiny.base()), tmp_path / harness.HANDED_OVER
    match what:
        case "a link":
            path.symlink_to(tiny.WEIGHTS)
        case "no weights":
            path.write_bytes(b"audit: green\n" * 9)
        case "of another model":
            save_file({**weights, "more": torch.zeros(1)}, path)
        case "not finite":
            save_file({name: value * float("nan") for name, value in weights.items()}, path)
    audit.main()
    said = capsys.readouterr().out
    assert said.endswith("audit: red\n") and said.count("audit:") == 1 and "drift" not in said


def test_an_adapter_is_handed_over_as_the_weights_it_comes_to():
    model = add_lora(tiny.base(), 2)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".lora_B." in name:
                value.normal_()
    channels, *size = LATENT
    seen = [torch.randn(1, channels, tiny.FRAMES, *size), torch.tensor([0.5])]
    seen.append(torch.randn_like(seen[0]))
    mask = torch.eye(tiny.FRAMES)[0].reshape(1, 1, -1, 1, 1).expand(1, 1, -1, *size)
    made = model(*seen, mask)
    same = tiny.base()
    assert not torch.allclose(same(*seen, mask), made, atol=1e-3)
    same.load_state_dict(harness.whole(model))
    torch.testing.assert_close(same(*seen, mask), made)
