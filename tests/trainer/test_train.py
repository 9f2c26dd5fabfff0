from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from loop.agents.search import dimensions
from loop.constants import find_constants, literal, set_constants

SCRIPT = Path(__file__).parents[2] / "trainer" / "train.py"
SUMMARY = (
    "val_bpb", "training_seconds", "total_seconds", "peak_vram_mb", "mfu_percent", "total_tokens_M", "num_steps",
    "num_params_M", "depth",
)  # fmt: skip


def run(environment: dict[str, str], folder: Path, **constants: object) -> subprocess.CompletedProcess[str]:
    """Train a copy of the script with other constants."""
    values = {name: literal(value) if not isinstance(value, str) else repr(value) for name, value in constants.items()}
    text = set_constants(SCRIPT.read_text(), values, "cpu") if values else SCRIPT.read_text()
    copy = folder / "train.py"
    copy.write_text(text)
    env = {**environment, "PATH": "", "PYTHONPATH": str(SCRIPT.parents[1])}
    return subprocess.run([sys.executable, str(copy)], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_it_learns_and_prints_what_the_loop_reads(environment, text, tmp_path):
    done = run(environment, tmp_path)
    assert done.returncode == 0, done.stderr
    block = done.stdout.rpartition("---\n")[2].splitlines()
    summary = {name.strip(): float(value) for name, value in (line.split(":") for line in block)}
    assert set(SUMMARY) <= set(summary)
    unigram = math.log2(text.tokenizer.n_vocab) / 2
    assert 1.0 < summary["val_bpb"] < unigram
    assert 1.0 <= summary["training_seconds"] < 1.5 < summary["total_seconds"]
    steps = [line for line in done.stdout.splitlines() if line.startswith("step ")]
    assert len(steps) == summary["num_steps"]
    assert summary["total_tokens_M"] == pytest.approx(summary["num_steps"] * 1024 / 1e6, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("constants", [{"HEAD_LR": 1e6, "EMBEDDING_LR": 1e6}, {"MATRIX_LR": 1e38}])
def test_a_run_that_is_lost_ends_at_once(environment, text, tmp_path, constants):
    done = run({**environment, "LABTOP_BUDGET": "100"}, tmp_path, **constants)
    assert done.returncode == 1
    assert "stopped at step" in done.stderr and "the loss is" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "constants",
    [
        {"WINDOWS": "SSSL", "DEPTH": 5, "HEAD_WIDTH": 24, "HEADS": 3},
        {"WINDOWS": "L", "VALUE_EMBEDDINGS": False, "SHIFT": False, "SOFTCAP": 15.0},
        {"ACCUMULATE": 3, "WEIGHT_DECAY": 0.2, "WARMUP": 0.2, "FINAL_LR": 0.2, "CONTEXT": 48, "DEPTH": 1},
    ],
)
def test_what_the_constants_allow_trains(environment, text, tmp_path, constants):
    done = run({**environment, "LABTOP_BUDGET": "0.3"}, tmp_path, **constants)
    assert done.returncode == 0, done.stderr
    assert "val_bpb:" in done.stdout


def test_every_constant_at_the_top_can_be_searched_and_is_explained():
    found = find_constants(SCRIPT.read_text(), "cpu")
    assert len(found) > 20
    assert all(constant.comment for constant in found)
    assert {name for _, name in dimensions({"train.py": SCRIPT.read_text()}, "cpu")} == {c.name for c in found}
    for device in ("cuda", "mps"):
        assert {c.name for c in find_constants(SCRIPT.read_text(), device)} == {c.name for c in found}


@pytest.fixture
def model(train, text):
    torch.manual_seed(0)
    model = train.GPT(text.tokenizer.n_vocab)
    for parameter in model.parameters():  # The zeros of a new model would hide what the test looks for.
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return model


def test_no_position_sees_what_comes_after_it(model, text):
    tokens = torch.randint(text.tokenizer.n_vocab, (2, 40))
    changed = tokens.clone()
    changed[:, 25:] = torch.randint(text.tokenizer.n_vocab, (2, 15))
    with torch.no_grad():
        a, b = model(tokens), model(changed)
    assert torch.allclose(a[:, :25], b[:, :25], atol=1e-5)
    assert not torch.allclose(a[:, 25:], b[:, 25:], atol=1e-3)


@pytest.mark.parametrize("window", [1, 7, 40])
def test_every_devices_attention_is_the_same(train, monkeypatch, window):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 40, 16)
    here = train.attend(q, k, v, window)
    monkeypatch.setattr(train, "KIND", "mps")
    assert torch.allclose(train.attend(q, k, v, window), here, atol=1e-5)


@pytest.mark.parametrize("softcap", [0.0, 15.0])
def test_the_heads_own_gradients_are_autograds(train, model, text, monkeypatch, softcap):
    monkeypatch.setattr(train, "SOFTCAP", softcap)
    tokens, targets = torch.randint(text.tokenizer.n_vocab, (2, 4, 50))
    names = [name for name, _ in model.named_parameters()]
    fast = model.loss(tokens, targets)
    mine = torch.autograd.grad(fast, list(model.parameters()), allow_unused=True)
    slow = F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    right = torch.autograd.grad(slow, list(model.parameters()), allow_unused=True)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-5)
    for name, a, b in zip(names, mine, right, strict=True):
        assert (a is None) == (b is None), name
        assert a is None or torch.allclose(a, b, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("shape", [(3, 64, 256), (2, 256, 64), (1, 64, 64)])
def test_muons_steps_are_nearly_orthogonal(train, shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(train.orthogonalize(torch.randn(shape)))
    # Of a square matrix the least singular values may be too small to be raised in five steps.
    assert values.max() < 1.5 and values.quantile(0.05) > 0.5


def test_learning_rates_rise_stay_and_fall(train, monkeypatch):
    monkeypatch.setattr(train, "WARMUP", 0.1)
    monkeypatch.setattr(train, "WARMDOWN", 0.5)
    monkeypatch.setattr(train, "FINAL_LR", 0.2)
    assert [train.schedule(at) for at in (0.05, 0.1, 0.5, 0.75, 1.0)] == pytest.approx([0.5, 1.0, 1.0, 0.6, 0.2])
