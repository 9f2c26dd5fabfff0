"""The bank without video: what a forecaster records of its windows, and what the example makes of it."""

import importlib.util
from pathlib import Path

import pytest
import torch

from video_recycle.bank import ErrorBank

SCRIPT = Path(__file__).parents[2] / "examples" / "lorenz.py"


@pytest.fixture(scope="module")
def lorenz():
    spec = importlib.util.spec_from_file_location("lorenz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_key_is_the_number_of_forecasts_in_a_window_and_the_bank_grows_deeper_by_itself(lorenz):
    chance = torch.Generator().manual_seed(0)
    data = lorenz.trajectories(2, 20, chance)
    bank = ErrorBank(torch.arange(1.0, 4.0), (lorenz.WINDOW, lorenz.SIZE), capacity=8, dtype=torch.float32)
    filled = []
    for _ in range(3):
        spoil = lorenz.recycled(bank, chance)
        lorenz.train(lorenz.Forecaster(), data, 1, 1e-3, chance, spoil=spoil, bank=bank)
        filled.append([count > 0 for count in bank.counts()])
    assert filled == [[True, False, False], [True, True, False], [True, True, True]]
    for key in (1.0, 2.0, 3.0):
        errors, keys = bank.draw(torch.full((20,), key))
        assert keys.min() >= key and (keys == key).any()
        if key < 3:
            # So many states at the window's end are forecasts, and the others are true.
            assert errors[:, : -int(key)].eq(0).all() and errors[:, -int(key) :].ne(0).any((1, 2)).all()


def test_a_forecast_that_knows_the_system_stays_and_one_that_grows_is_told_to_blow_up(lorenz, monkeypatch):
    monkeypatch.setattr(lorenz, "LONG", 300)
    truth = lorenz.trajectories(3, lorenz.WINDOW + lorenz.LONG, torch.Generator().manual_seed(1))

    def exact(window):
        x = window[:, -1].double() * lorenz.SPREAD + lorenz.MEAN
        return ((lorenz.advance(x) - lorenz.MEAN) / lorenz.SPREAD).float()

    good, bad = lorenz.judged(exact, truth), lorenz.judged(lambda window: 1.5 * window[:, -1], truth)
    assert good["blown up"] == 0 and good["valid"] > 5 and good["climate"] < 0.3
    assert bad["blown up"] == 1 and bad["valid"] < 1 and bad["climate"] != bad["climate"]
