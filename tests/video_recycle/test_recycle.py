"""The recycling step against the paper's equations."""

import pytest
import torch

from video_recycle.bank import ErrorBank
from video_recycle.flow import grid, like, noised, to_data, to_noise
from video_recycle.recycle import Inputs, Recycling, inject, record

SHAPE = (2, 5, 4, 4)
BATCH = 6
OFF = {"noise": 0.0, "video": 0.0, "image": 0.0, "clean": 0.0}


@pytest.fixture
def chance():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def step(chance):
    """A batch: x0, noise, sigma, condition."""
    sigma = torch.tensor([0.05, 0.2, 0.4, 0.6, 0.8, 1.0])
    x0, noise, condition = (torch.randn(BATCH, *SHAPE, generator=chance) for _ in range(3))
    return x0, noise, sigma, condition


@pytest.fixture
def bank(step):
    """One entry in the cell of each of the batch's noise levels."""
    made = ErrorBank(grid(50)[:-1], SHAPE, capacity=1, dtype=torch.float32)
    made.add(torch.randn(BATCH, *SHAPE), step[2])
    return made


def test_the_two_published_banks_are_one(step):
    """E_vid and E_noi as the reference computes them, by integrating one step, are -σ·dv and (1-σ)·dv."""
    x, target, sigma, predicted = step
    dv = predicted - target
    torch.testing.assert_close(to_data(x, predicted, sigma) - to_data(x, target, sigma), -like(sigma, x) * dv)
    torch.testing.assert_close(to_noise(x, predicted, sigma) - to_noise(x, target, sigma), (1 - like(sigma, x)) * dv)


def test_with_nothing_to_put_in_it_is_plain_flow_matching(step, bank, chance):
    x0, noise, sigma, condition = step
    empty = ErrorBank(grid(50)[:-1], SHAPE)
    always = Recycling(noise=1, video=1, image=1, clean=0)
    for made, settings in ((bank, Recycling(**OFF)), (bank, Recycling(clean=1.0)), (empty, always)):
        inputs = inject(made, *step, settings=settings, chance=chance)
        torch.testing.assert_close(inputs.x, noised(x0, noise, sigma))
        assert torch.equal(inputs.target, noise - x0) and torch.equal(inputs.condition, condition)
        assert inputs.clean.all() == (settings.clean == 1)


def test_the_noise_error_is_in_the_noise_and_in_the_target(step, bank, chance):
    x0, noise, sigma, condition = step
    dv, _ = bank.draw(sigma)
    error = (1 - like(sigma, x0)) * dv
    inputs = inject(bank, *step, settings=Recycling(**{**OFF, "noise": 1.0}), chance=chance)
    torch.testing.assert_close(inputs.x, noised(x0, noise + error, sigma))
    torch.testing.assert_close(inputs.target, noise + error - x0)
    assert torch.equal(inputs.condition, condition)


def test_the_video_error_is_in_the_input_and_not_in_the_target(step, bank, chance):
    x0, noise, sigma, _ = step
    dv, _ = bank.draw(sigma)
    error = -like(sigma, x0) * dv
    inputs = inject(bank, *step, settings=Recycling(**{**OFF, "video": 1.0}), chance=chance)
    torch.testing.assert_close(inputs.x, noised(x0 + error, noise, sigma))
    assert torch.equal(inputs.target, noise - x0)
    # The published target takes away σ of the error; what stays is (1-σ) of it.
    torch.testing.assert_close(to_data(inputs.x, inputs.target, sigma), x0 + (1 - like(sigma, x0)) * error)


def test_the_exact_target_leads_to_clean_data(step, bank, chance):
    x0, _, sigma, _ = step
    inputs = inject(bank, *step, settings=Recycling(noise=1, video=1, image=1, clean=0, exact=True), chance=chance)
    exact = sigma >= Recycling.exact_from
    torch.testing.assert_close(to_data(inputs.x, inputs.target, sigma)[exact], x0[exact])
    assert inputs.target.abs().max() < 1 / Recycling.exact_from * (inputs.x - x0).abs().max() + 1e-6


def test_the_image_error_is_a_run_of_frames_on_the_conditions_first(step, chance):
    condition = step[3]
    made = ErrorBank(grid(50)[:-1], SHAPE, capacity=1, dtype=torch.float32)
    by_frame = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1, 1).expand(1, *SHAPE)
    made.add(by_frame, torch.tensor([0.5]))
    before, starts = condition.clone(), set()
    for _ in range(40):
        inputs = inject(made, *step, settings=Recycling(**{**OFF, "image": 1.0}, image_frames=3), chance=chance)
        added = (inputs.condition - condition) / -0.5
        assert not added[:, :, 3:].any()
        first = added[0, 0, 0, 0, 0].round()
        torch.testing.assert_close(
            added[:, :, :3], by_frame[:, :, int(first) - 1 :][:, :, :3].expand_as(added[:, :, :3])
        )
        starts.add(int(first))
    assert starts == {1, 2, 3}
    inject(made, *step, settings=Recycling(image=1.0, clean=0.0, image_frames=99), chance=chance)
    assert torch.equal(condition, before)


def test_recording_leaves_out_most_clean_steps_and_all_that_is_not_finite(step, chance):
    x0, _, sigma, _ = step
    target, predicted = torch.zeros_like(x0), torch.randn_like(x0)
    predicted[0] = float("nan")
    clean = torch.tensor([False, False, False, True, True, True])
    inputs = Inputs(x=x0, condition=x0, target=target, clean=clean)
    for share, kept in ((0.0, 2), (1.0, 5)):
        made = ErrorBank(grid(50)[:-1], SHAPE, dtype=torch.float32)
        assert record(made, predicted, inputs, sigma, settings=Recycling(clean_update=share), chance=chance) == kept
    dv, level = made.draw(sigma[1:2])
    assert torch.equal(dv[0], predicted[1]) and level == sigma[1]


def test_gradients_reach_the_model_and_never_the_bank(step, bank, chance):
    settings = Recycling(noise=1, video=1, image=1, clean=0)
    weight = torch.nn.Parameter(torch.ones(()))
    inputs = inject(bank, *step, settings=settings, chance=chance)
    predicted = weight * inputs.x + inputs.condition
    assert record(bank, predicted, inputs, step[2], settings=settings, chance=chance) == BATCH
    (predicted - inputs.target).square().mean().backward()
    assert weight.grad is not None and not bank.draw(step[2])[0].requires_grad
