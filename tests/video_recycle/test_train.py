"""The trainer on the small world: what resumes, what is never spoilt, and that a rollout hands its latents over."""

import itertools
from dataclasses import replace

import pytest
import torch

from video_recycle import tiny
from video_recycle.bank import BankError
from video_recycle.flow import grid
from video_recycle.model import TinyDiT
from video_recycle.rollout import rollout
from video_recycle.train import BEST, LAST, Batch, Settings, Trainer, TrainingError, read_weights

SETTINGS = Settings(steps=4, rate=1e-3, capacity=4, validate_every=2, save_every=2, weighting="latent")


def trainer(folder=None, draw=None, **settings):
    torch.manual_seed(0)
    model = TinyDiT(frames=tiny.FRAMES, dim=16, layers=1)
    return Trainer(
        model, draw or tiny.clips(4), tiny.held_out(1, 2), settings=replace(SETTINGS, **settings), folder=folder
    )


def test_a_resumed_training_ends_as_if_it_had_never_stopped(tmp_path):
    whole, first, second = trainer(), trainer(tmp_path), trainer(tmp_path)
    list(whole.run())
    list(itertools.islice(first.run(), 2))
    assert second.resume() == 2 and len(second.bank) == len(first.bank)
    list(second.run())
    for name, value in whole.weights().items():
        assert torch.equal(value, second.weights()[name]), name
    assert whole.bank.counts() == second.bank.counts()
    assert read_weights(tmp_path / BEST).keys() == whole.weights().keys()
    with pytest.raises(TrainingError, match="other settings: rate"):
        trainer(tmp_path, rate=0.5).resume()


def test_clips_of_another_size_than_the_banks_are_told_and_nothing_is_trained(tmp_path):
    list(itertools.islice(trainer(tmp_path).run(), 2))
    wider = torch.zeros(1, 3, tiny.FRAMES, 12, 24)
    made = trainer(tmp_path, draw=lambda chance: Batch(x0=wider))
    made.resume()
    before = made.weights()
    with pytest.raises(BankError, match=r"\(3, 5, 12, 12\), and these are \(3, 5, 12, 24\): clips want one size"):
        next(made.run())
    assert all(torch.equal(value, made.weights()[name]) for name, value in before.items())


def test_latents_that_are_not_finite_reach_neither_weights_nor_bank():
    made = trainer(draw=lambda chance: Batch(x0=torch.full((2, 3, tiny.FRAMES, 12, 12), float("nan"))), steps=99)
    before = made.weights()
    with pytest.raises(TrainingError, match="not been finite"):
        list(made.run())
    assert made.bank is None and all(torch.equal(value, made.weights()[name]) for name, value in before.items())


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    made = trainer(tmp_path)
    list(itertools.islice(made.run(), 2))

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"No space.*before is whole"):
        made.save()
    monkeypatch.undo()
    assert trainer(tmp_path).resume() == 2 and not list(tmp_path.glob("*.part"))
    (tmp_path / LAST).write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match="no checkpoint"):
        trainer(tmp_path).resume()


def test_an_adapter_is_all_that_is_trained_and_changes_nothing_at_first():
    base, world = tiny.base(), tiny.starts(2)
    before = [pixels for pixels, _ in tiny.play(base, world, 1)]
    same = tiny.fine_tuned(base, "recycle", lora=True, settings=replace(SETTINGS, steps=0))
    assert torch.equal(before[0], next(tiny.play(same, world, 1))[0])
    trained = [name for name, value in same.named_parameters() if value.requires_grad]
    assert trained and all("lora" in name for name in trained)


def test_a_clip_goes_on_from_the_last_latents_with_noise_of_its_own():
    seen = []

    def model(x, sigma, given, mask, prompt):
        seen.append((x.clone(), given.clone(), mask.clone(), prompt))
        return torch.ones_like(x)

    start, reference = torch.randn(1, 2, 2, 4, 4), torch.randn(1, 2, 1, 4, 4)
    clips = list(rollout(model, start, ["a", "b"], frames=5, sigmas=grid(1), reference=reference))
    assert [clip.shape[2] for clip in clips] == [3, 3] and [step[3] for step in seen] == ["a", "b"]
    assert torch.equal(seen[1][1][:, :, :2], clips[0][:, :, -2:]) and not torch.equal(seen[0][0], seen[1][0])
    assert torch.equal(seen[1][1][:, :, 2:], reference.expand(1, 2, 3, 4, 4))
    assert seen[0][2][0, 0, :, 0, 0].tolist() == [1, 1, 0, 0, 0]


def test_the_measures_tell_truth_from_a_frozen_and_a_faded_picture():
    world, times = tiny.starts(4), torch.arange(4) + 20
    truth = tiny.render(world, times)
    true, faded = (tiny.measure(x, world, times, tiny.features()) for x in (truth, 0.6 * truth))
    frozen = tiny.drift(tiny.copied(world, 6), world)[-1]
    assert true.background < 1e-6 and true.found == 1 and true.position < 0.1 and abs(true.motion - 1) < 1e-6
    assert frozen.motion == 0 and frozen.background < 0.01 and frozen.position > 0.4
    assert faded.background > 0.1 and faded.contrast < 0.7 and faded.frechet > 10 * max(true.frechet, 1e-3)
