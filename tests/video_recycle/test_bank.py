"""The error bank: cells, replacement, what may not enter, its cap, and its file."""

import pytest
import torch

from video_recycle.bank import BankError, ErrorBank
from video_recycle.flow import grid

ANCHORS = grid(50)[:-1]
SHAPE = (2, 3, 4, 4)


def bank(**settings):
    return ErrorBank(ANCHORS, SHAPE, **{"capacity": 4, **settings})


def filled(*values, key=1.0, **settings):
    made = bank(**settings)
    for value in values:
        assert made.add(torch.full((1, *SHAPE), float(value)), torch.tensor([key])) == 1
    return made


def held(made, key=1.0, draws=200):
    """The values a cell holds, by drawing until all were most likely seen."""
    residuals, _ = made.draw(torch.full((draws,), key))
    return sorted(set(residuals[:, 0, 0, 0, 0].tolist()))


def test_a_key_belongs_to_the_nearest_anchor_and_comes_back_exactly():
    made = bank()
    keys = torch.tensor([1.0, 0.9963, 0.5, 0.0926, 0.0])
    assert made.cells(keys).tolist() == [int((ANCHORS - key).abs().argmin()) for key in keys]
    made.add(torch.randn(5, *SHAPE), keys)
    assert sum(made.counts()) == len(made) == 5
    _, drawn = made.draw(torch.tensor([0.5]))
    assert drawn.item() == 0.5


def test_an_empty_cell_gives_zeros():
    residuals, keys = bank().draw(torch.tensor([0.3, 0.9]))
    assert residuals.shape == (2, *SHAPE) and not residuals.any() and not keys.any()
    residuals, _ = bank().draw_any(3)
    assert residuals.shape == (3, *SHAPE) and not residuals.any()


def test_a_full_cell_replaces_as_asked():
    assert held(filled(1, 2, 3, 4)) == [1, 2, 3, 4]
    assert held(filled(1, 2, 3, 4, 5, 6, replacement="fifo")) == [3, 4, 5, 6]
    assert held(filled(10, 20, 30, 40, 29, 11, replacement="nearest")) == [11, 20, 29, 40]
    values = held(filled(1, 2, 3, 4, 5, replacement="random"))
    assert len(values) == 4 and 5 in values


def test_the_nearest_is_found_among_more_than_are_compared_at_once():
    made = filled(*range(150), capacity=150, replacement="nearest")
    made.add(torch.full((1, *SHAPE), 131.25), torch.tensor([1.0]))
    values = held(made, draws=5000)
    assert 131.25 in values and 131 not in values and len(values) == 150


def test_any_entry_is_as_likely_as_any_other():
    made = filled(1, 2, 3)
    made.add(torch.full((1, *SHAPE), 4.0), torch.tensor([0.1]))
    residuals, keys = made.draw_any(4000)
    values, counts = residuals[:, 0, 0, 0, 0].unique(return_counts=True)
    assert values.tolist() == [1, 2, 3, 4] and counts.min() > 800
    assert set(keys[residuals[:, 0, 0, 0, 0] == 4].tolist()) == {torch.tensor(0.1).item()}


def test_what_is_not_finite_never_enters():
    made, residuals = bank(), torch.zeros(4, *SHAPE)
    residuals[0, 0, 0, 0, 0] = float("nan")
    residuals[1, 1, 2, 3, 3] = float("inf")
    residuals[2, 0, 0, 0, 0] = 1e6  # More than half precision holds.
    assert made.add(residuals, torch.ones(4)) == 1 and len(made) == 1
    assert made.add(torch.zeros(1, *SHAPE), torch.tensor([float("nan")])) == 0
    with pytest.raises(BankError, match="shape"):
        made.add(torch.zeros(1, 2, 3, 4, 5), torch.ones(1))


def test_the_cap_in_bytes_holds():
    entry = 2 * 3 * 4 * 4 * 2
    made = bank(capacity=500, max_bytes=entry * 50 * 3 + 1)
    assert made.capacity == 3 and made.full_bytes == entry * 50 * 3 and "50 cells x 3" in str(made)
    with pytest.raises(BankError, match="max_bytes"):
        bank(max_bytes=entry * 49)
    assert bank(capacity=500, max_bytes=entry * 50, pool=2).capacity == 4


def test_pooling_keeps_means():
    made, residual = bank(pool=2, dtype=torch.float32), torch.randn(1, *SHAPE)
    made.add(residual, torch.tensor([1.0]))
    drawn, _ = made.draw(torch.tensor([1.0]))
    block = drawn[0, 1, 2, 2:, :2]
    torch.testing.assert_close(block, residual[0, 1, 2, 2:, :2].mean().expand(2, 2))
    with pytest.raises(BankError, match="pooled"):
        ErrorBank(ANCHORS, (2, 3, 5), pool=2)


def test_modulation_scales_within_its_bounds():
    drawn, _ = filled(1, modulation=0.25).draw(torch.ones(500))
    scales = drawn[:, 0, 0, 0, 0]
    assert 0.75 <= scales.min() < 0.8 and 1.2 < scales.max() <= 1.25


@pytest.mark.parametrize("replacement", ["random", "fifo", "nearest"])
def test_a_saved_bank_goes_on_as_if_it_had_never_been_away(tmp_path, replacement):
    first, again = (filled(1, 2, 3, 4, 5, replacement=replacement, seed=seed) for seed in (7, 8))
    first.add(torch.randn(3, *SHAPE), torch.tensor([0.2, 0.5, 0.6]))
    first.save(tmp_path / "bank.pt")
    again.load(tmp_path / "bank.pt")
    for made in (first, again):
        made.add(torch.full((2, *SHAPE), 2.5), torch.ones(2))
    assert first.counts() == again.counts()
    for one, other in zip(first.draw_any(50), again.draw_any(50), strict=True):
        assert torch.equal(one, other)
    assert [path.name for path in tmp_path.iterdir()] == ["bank.pt"]


def test_another_models_or_a_damaged_file_changes_nothing(tmp_path):
    made, path = filled(1, 2), tmp_path / "bank.pt"
    others = [
        ErrorBank(ANCHORS, (2, 3, 4, 6), capacity=4),
        ErrorBank(grid(50, shift=3.0)[:-1], SHAPE, capacity=4),
        bank(capacity=5),
        bank(pool=2),
    ]
    for other in others:
        other.save(path)
        with pytest.raises(BankError, match="another one's"):
            made.load(path)
    made.save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(BankError, match="no saved bank"):
            made.load(path)
    torch.save({**made.state_dict(), "entries": [torch.zeros(9, *SHAPE)] * 50}, path)
    with pytest.raises(BankError, match="damaged"):
        made.load(path)
    with pytest.raises(FileNotFoundError):
        made.load(tmp_path / "none.pt")
    assert held(made) == [1, 2]


def test_a_save_that_fails_leaves_the_last_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "bank.pt"
    filled(1, 2).save(path)

    def full_disk(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        filled(3).save(path)
    monkeypatch.undo()
    made = bank()
    made.load(path)
    assert held(made) == [1, 2] and [left.name for left in tmp_path.iterdir()] == ["bank.pt"]
