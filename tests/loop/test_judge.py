from __future__ import annotations

import pytest

from loop.judge import judge


@pytest.mark.parametrize(
    ("value", "incumbent", "direction", "margin", "verdict", "delta"),
    [
        (1.5, None, "minimize", 0.1, "keep", None),
        (1.4, 1.5, "minimize", 0.0, "keep", -0.1),
        (1.6, 1.5, "minimize", 0.0, "discard", 0.1),
        (1.5, 1.5, "minimize", 0.0, "discard", 0.0),
        (1.45, 1.5, "minimize", 0.1, "discard", -0.05),
        (1.25, 1.5, "minimize", 0.25, "keep", -0.25),
        (0.9, 0.8, "maximize", 0.0, "keep", 0.1),
        (0.7, 0.8, "maximize", 0.0, "discard", -0.1),
        (None, 1.5, "minimize", 0.0, "crash", None),
        (None, None, "minimize", 0.0, "crash", None),
    ],
)
def test_verdicts(value, incumbent, direction, margin, verdict, delta):
    judged = judge(value, incumbent, direction=direction, margin=margin, failure="out of memory")
    assert judged.verdict == verdict
    assert judged.delta == (None if delta is None else pytest.approx(delta))
    assert judged.reason
    if verdict == "crash":
        assert judged.reason == "out of memory"


def test_a_gain_within_the_margin_says_so():
    judged = judge(1.45, 1.5, direction="minimize", margin=0.1)
    assert judged.reason == "0.050000 better than 1.500000, less than the margin 0.1"
