"""The flow's arithmetic against its definition."""

import torch

from video_recycle import flow


def test_the_grid_is_the_papers():
    levels = flow.grid(50)
    assert levels.shape == (51,) and levels[0] == 1 and levels[-1] == 0 and (levels.diff() < 0).all()
    # The 50-step, shift-5 schedule of the reference implementation ends at timesteps 172.4 and 92.6.
    torch.testing.assert_close(levels[-3:-1] * 1000, torch.tensor([172.4138, 92.5926]))
    torch.testing.assert_close(flow.grid(4, shift=1.0), torch.linspace(1, 0, 5))


def test_one_step_along_the_velocity_leads_to_data_and_to_noise():
    x0, noise, sigma = torch.randn(3, 2, 4, 5, 6), torch.randn(3, 2, 4, 5, 6), torch.tensor([0.0, 0.3, 1.0])
    x, v = flow.noised(x0, noise, sigma), flow.velocity(x0, noise)
    torch.testing.assert_close(x[0], x0[0])
    torch.testing.assert_close(x[2], noise[2])
    torch.testing.assert_close(flow.to_data(x, v, sigma), x0)
    torch.testing.assert_close(flow.to_noise(x, v, sigma), noise)


def test_sampling_integrates_the_velocity_from_noise_to_data():
    x0, noise, seen = torch.randn(2, 3), torch.randn(2, 3), []

    def model(x, sigma):
        seen.append(sigma)
        return noise - x0

    torch.testing.assert_close(flow.sample(model, noise, flow.grid(8)), x0)
    torch.testing.assert_close(torch.stack(seen)[:, 0], flow.grid(8)[:-1])


def test_sampling_with_the_exact_field_of_a_gaussian_ends_in_that_gaussian():
    """For data N(m, s²) the field E[ε - x0 | x] is known, and its flow takes N(0, 1) to N(m, s²)."""
    mean, spread = 2.0, 0.5

    def model(x, sigma):
        level = sigma[:, None]
        variance = ((1 - level) * spread) ** 2 + level**2
        return (level - (1 - level) * spread**2) / variance * (x - (1 - level) * mean) - mean

    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = flow.sample(model, noise, flow.grid(400, shift=1.0).double())
    assert abs(data.mean() - mean) < 0.02 and abs(data.std() - spread) < 0.02
