"""Error recycling without video: a network that forecasts Lorenz-96, and goes on from its own forecasts for ever.

    python examples/lorenz.py                         # five seeds, some minutes on one core
    python examples/lorenz.py --seeds 1               # a look
    python examples/lorenz.py --trajectories 8        # where training errors say little of those that will be met

The bank is the video's own, `video_recycle.bank.ErrorBank`; flow matching is not needed for it. An entry is the error
of a whole window of states, and its key how many of these are forecasts. What is forecast from a true window makes an
error of key 1; that put into another true window, and forecast from there, one of key 2; and so on. So the bank comes
to hold the windows' errors as they are in a rollout, and no rollout is made for it. As in the video, the target is the
truth all along.

Beside it, for as many steps from the same weights: plain fine-tuning, and white noise on the window at five strengths.
Each is rolled out far past the one step it was trained on, and judged by

    valid     time until the root mean square error is 0.4 of the climate's spread; more is better
    climate   how far the values of long rollouts are distributed from the true ones: 1-Wasserstein, over the spread;
              of those that do not blow up
    blown up  share of the long rollouts that leave for infinity
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from tqdm import tqdm

from video_recycle.bank import ErrorBank

SIZE, FORCING = 8, 8.0
STEP = 0.05
"""Time units between two states."""
MEAN, SPREAD = 2.4, 3.65
"""Of the climate."""
WINDOW = 8
"""States that a forecast is made from: more than it needs, so that they can contradict each other."""
LENGTH = 60
"""Of each trajectory that is trained on."""
PRETRAINING, FINE_TUNING, BATCH = 600, 1000, 64
STARTS, SHORT, LONG = 64, 200, 1000
"""Rollouts, and their lengths in steps for `valid` and for `climate`."""
TOLERATED, INFINITY = 0.4, 10.0
STRENGTHS = (0.01, 0.03, 0.1, 0.2, 0.4)
"""Of white noise; everything is in units of the climate's spread."""
DEPTHS = (1, WINDOW)
"""The largest key that a bank holds."""
PUT_IN = 0.7
"""How often a window is spoiled: by an error of the bank, or by noise."""
Found = dict[str, float]
Spoil = Callable[[Tensor], tuple[Tensor, Tensor]]
"""True windows `[B, WINDOW, SIZE]` to what is added to them, and the keys of that, `[B]`."""


def tendency(x: Tensor) -> Tensor:
    """dx/dt of `[..., SIZE]`."""
    return (x.roll(-1, -1) - x.roll(2, -1)) * x.roll(1, -1) - x + FORCING


def advance(x: Tensor) -> Tensor:
    """`x` one STEP later, by two steps of Runge-Kutta."""
    h = STEP / 2
    for _ in range(2):
        a = tendency(x)
        b = tendency(x + h / 2 * a)
        c = tendency(x + h / 2 * b)
        x = x + h / 6 * (a + 2 * b + 2 * c + tendency(x + h * c))
    return x


def trajectories(count: int, steps: int, chance: torch.Generator) -> Tensor:
    """States on the attractor, `[count, steps, SIZE]`, in units of the climate."""
    x = FORCING + torch.randn(count, SIZE, generator=chance, dtype=torch.float64)
    for _ in range(400):
        x = advance(x)
    states = []
    for _ in range(steps):
        states.append(x)
        x = advance(x)
    return ((torch.stack(states, 1) - MEAN) / SPREAD).float()


class Forecaster(nn.Module):
    """The state after a window `[B, WINDOW, SIZE]`, `[B, SIZE]`: what is added to the last one."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Flatten(),
            nn.Linear(WINDOW * SIZE, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, SIZE),
        )

    def forward(self, window: Tensor) -> Tensor:
        forecast: Tensor = window[:, -1] + self.change(window)
        return forecast


def train(
    model: Forecaster,
    data: Tensor,
    steps: int,
    rate: float,
    chance: torch.Generator,
    *,
    spoil: Spoil | None = None,
    bank: ErrorBank | None = None,
) -> Forecaster:
    """Minimise the forecast's error from windows that `spoil` has changed; the new windows' errors go into `bank`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    windows = data.unfold(1, WINDOW + 1, 1).transpose(2, 3).flatten(0, 1)
    for _ in range(steps):
        drawn = windows[torch.randint(len(windows), (BATCH,), generator=chance)]
        truth, target = drawn[:, :-1], drawn[:, -1]
        added, keys = spoil(truth) if spoil else (torch.zeros_like(truth), torch.zeros(len(truth)))
        error = model(truth + added) - target
        if bank is not None:
            follows = torch.cat([added[:, 1:], error[:, None]], 1)
            bank.add(follows, (keys + 1).clamp_max(bank.anchors[-1]))
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
        schedule.step()
    return model


def recycled(bank: ErrorBank, chance: torch.Generator) -> Spoil:
    """An error of the bank, of a key drawn anew for each window; none where the bank has none of it yet."""

    def spoil(truth: Tensor) -> tuple[Tensor, Tensor]:
        keys = bank.anchors[torch.randint(len(bank.anchors), (len(truth),), generator=chance)]
        errors, _ = bank.draw(keys)
        put_in = (torch.rand(len(truth), generator=chance) < PUT_IN) & errors.flatten(1).any(1)
        return errors * put_in[:, None, None], keys * put_in

    return spoil


def noisy(strength: float, chance: torch.Generator) -> Spoil:
    def spoil(truth: Tensor) -> tuple[Tensor, Tensor]:
        put_in = torch.rand(len(truth), 1, 1, generator=chance) < PUT_IN
        return put_in * strength * torch.randn(truth.shape, generator=chance), torch.zeros(len(truth))

    return spoil


@torch.no_grad()
def rollout(model: Forecaster, window: Tensor, steps: int) -> Tensor:
    """`[B, steps, SIZE]` after `window`. What blows up is held at a million."""
    made = []
    for _ in range(steps):
        made.append(model(window).nan_to_num(1e6).clamp(-1e6, 1e6))
        window = torch.cat([window[:, 1:], made[-1][:, None]], 1)
    return torch.stack(made, 1)


def judged(model: Forecaster, truth: Tensor) -> Found:
    """`truth`: `[STARTS, WINDOW + LONG, SIZE]`."""
    made, true = rollout(model, truth[:, :WINDOW], LONG), truth[:, WINDOW:]
    wrong = (made - true)[:, :SHORT].square().mean(2).sqrt() > TOLERATED
    valid = torch.where(wrong.any(1), wrong.int().argmax(1), SHORT) * STEP
    gone = made.abs().amax((1, 2)) > INFINITY
    found = {"valid": float(valid.mean()), "climate": float("nan"), "blown up": float(gone.float().mean())}
    if not gone.all():
        late, wanted = (x[~gone, SHORT:].flatten().sort().values for x in (made, true))
        found["climate"] = float((late - wanted).abs().mean())
    return found


def ways(seed: int, count: int) -> Iterator[tuple[str, Found]]:
    """What each way comes to, all from one network that was pretrained on so many trajectories."""
    chance = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    data, truth = trajectories(count, LENGTH, chance), trajectories(STARTS, WINDOW + LONG, chance)
    base = train(Forecaster(), data, PRETRAINING, 3e-3, chance)
    yield "base", judged(base, truth)

    def tuned(spoil: Spoil | None = None, bank: ErrorBank | None = None) -> Found:
        return judged(train(copy.deepcopy(base), data, FINE_TUNING, 1e-3, chance, spoil=spoil, bank=bank), truth)

    yield "plain", tuned()
    for strength in STRENGTHS:
        yield f"noise {strength}", tuned(noisy(strength, chance))
    for depth in DEPTHS:
        bank = ErrorBank(torch.arange(1.0, depth + 1), (WINDOW, SIZE), capacity=256, seed=seed)
        yield f"recycled, {depth} deep", tuned(recycled(bank, chance), bank)


def spread(values: list[float], digits: int) -> str:
    """Mean ± standard deviation of those there are, and of how many where some are not."""
    there = [value for value in values if value == value]
    if not there:
        return "none"
    few = "" if len(there) == len(values) else f" ({len(there)})"
    return f"{statistics.mean(there):.{digits}f} ± {statistics.stdev(there) if len(there) > 1 else 0:.{digits}f}{few}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Forecast Lorenz-96 far past the training horizon: base, plain, noise, recycled errors.",
        epilog="example: python examples/lorenz.py --seeds 1",
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="[5]")
    parser.add_argument("--trajectories", type=int, default=256, metavar="N", help="that are trained on [256]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[Found]] = {}
    began = time.process_time()
    with tqdm(total=asked.seeds * (2 + len(STRENGTHS) + len(DEPTHS))) as bar:
        for seed in range(asked.seeds):
            for name, measured in ways(seed, asked.trajectories):
                found.setdefault(name, []).append(measured)
                bar.set_description(f"seed {seed}, {name}")
                bar.update()
    spent = time.process_time() - began
    print(f"Lorenz-96, {asked.trajectories} trajectories, {asked.seeds} seeds: mean ± standard deviation")
    print(f"{spent:.0f} s of CPU time\n")
    print(f"{'':<18}{'valid':>16}{'climate':>22}{'blown up':>16}")
    for name, runs in found.items():
        columns = {key: [run[key] for run in runs] for key in runs[0]}
        valid, climate, gone = (
            spread(columns[key], digits) for key, digits in (("valid", 2), ("climate", 3), ("blown up", 2))
        )
        print(f"{name:<18}{valid:>16}{climate:>22}{gone:>16}")


if __name__ == "__main__":
    main()
