"""The small model says where things come from: what it answers before it has learned, and that they move as told."""

import pytest
import torch

from video_recycle import tiny
from video_recycle.condition import condition
from video_recycle.flow import to_data
from video_recycle.model import TinyDiT

CHANNELS, REACH = 3, 2


def answered(logit, height=60.0):
    """x̂0 of a fresh model, with one logit raised above all others at every place; and what it was given."""
    torch.manual_seed(0)
    model = TinyDiT(frames=tiny.FRAMES)
    if logit is not None:
        with torch.no_grad():
            model.proj_out.bias.view(-1, model.patch**2)[CHANNELS + logit] = height
    last, reference, x = torch.randn(2, 3, 1, 12, 12), torch.randn(2, 3, 1, 12, 12), torch.randn(2, 3, 5, 12, 12)
    given, mask = condition(last, tiny.FRAMES, reference=reference)
    sigma = torch.tensor([1.0, 0.5])
    return to_data(x, model(x, sigma, given, mask), sigma), last, reference


def test_a_fresh_model_copies_the_last_frame():
    clean, last, _ = answered(None)
    assert torch.nn.functional.cosine_similarity(clean, last.expand_as(clean), dim=1).mean() > 0.98


@pytest.mark.parametrize("down, right", [(0, 1), (-2, 0), (1, -2)])
def test_a_place_shows_what_stood_where_it_is_told_to_look(down, right):
    clean, last, _ = answered((down + REACH) * (2 * REACH + 1) + right + REACH)
    inner = slice(REACH, -REACH)
    moved = last.roll((-down, -right), (3, 4))
    torch.testing.assert_close(clean[..., inner, inner], moved.expand_as(clean)[..., inner, inner])


def test_a_place_may_be_taken_from_the_reference():
    clean, _, reference = answered((2 * REACH + 1) ** 2)
    torch.testing.assert_close(clean[:, :, tiny.GIVEN :], reference.expand_as(clean)[:, :, tiny.GIVEN :])
