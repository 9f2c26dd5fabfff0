"""What a study may come to in all: which cap is reached, what is left of each, and which may not hold."""

import pytest

from loop.caps import doubt, left, reached, untold
from loop.config import Asking, Caps
from loop.state import Experiment, StudyState, Usage

NOW = 10_000.0


def state(**fields):
    """A study that ran for an hour and a half, half an hour of it just now, and tried three things."""
    one = Experiment(number=0, stage="decided", base="0", agent="a", spec=1, started=0.0, verdict="discard")
    used = {"a": Usage(input=1500, output=500, cost=0.004), "b": Usage(input=400, cost=0.5)}
    known = {"experiments": [one] * 3, "usage": used, "ran": 3600.0, "mode": "running", "time": NOW - 1800}
    return StudyState(**{**known, **fields})


@pytest.mark.parametrize(
    ("caps", "said"),
    [
        ({"experiments": 3}, "3 of 3 experiments"),
        ({"hours": 1.5}, "1.50 of 1.50 hours"),
        ({"tokens": 2400}, "2,400 of 2,400 tokens"),
        ({"cost": 0.504}, "0.50 of 0.50 cost"),
    ],
    ids=["experiments", "hours", "tokens", "cost"],
)
def test_a_cap_is_reached_once_as_much_is_used_and_no_sooner(caps, said):
    assert said in reached(state(), Caps(**caps), NOW) and "[tool.labtop.caps]" in reached(state(), Caps(**caps), NOW)
    (more,) = caps.values()
    assert reached(state(), Caps(**dict.fromkeys(caps, more * 2)), NOW) is None


def test_a_turn_under_way_counts_and_a_pause_does_not():
    caps = Caps(tokens=2500, hours=1.2)
    assert reached(state(mode="paused"), caps, NOW) is None
    assert "2,500 of 2,500 tokens" in reached(state(mode="paused"), caps, NOW, Usage(input=60, output=40))


def test_what_is_left_is_told_in_words():
    told = left(state(limit=7), Caps(experiments=5, hours=2, tokens=2000, cost=1), NOW)
    assert told[:2] == ("4 experiments of this run", "2 of 5 experiments")
    assert told[2:] == ("0.50 of 2.00 hours", "0 of 2,000 tokens", "0.50 of 1.00 of cost")
    assert left(state(), Caps(), NOW) == ()


@pytest.mark.parametrize(
    ("agent", "cost", "prices", "doubted"),
    [
        ("openai:m", 1.0, {}, True),
        ("acp:codex", 1.0, {"input": 1.0}, True),
        ("openai:m", 1.0, {"input": 1.0, "output": 2.0}, False),
        ("openai:m", None, {}, False),
        ("search", 1.0, {}, False),
    ],
    ids=["no prices", "half of them", "prices", "no cap", "costs nothing"],
)
def test_a_cap_on_cost_is_doubted_where_the_cost_may_not_be_known(agent, cost, prices, doubted):
    assert (doubt(agent, Caps(cost=cost), Asking(prices=prices)) is not None) == doubted


@pytest.mark.parametrize(
    ("used", "caps", "said"),
    [
        ({"turns": 1}, {"tokens": 1000}, "cap on tokens does not hold"),
        ({"turns": 1}, {"tokens": 1000, "cost": 1.0}, "cap on tokens and cost does not hold"),
        ({"turns": 2}, {"tokens": 1000}, None),
        ({"turns": 1, "input": 10}, {"tokens": 1000}, None),
        ({"turns": 1}, {"hours": 1}, None),
    ],
    ids=["tokens", "both", "told before", "it tells", "no such cap"],
)
def test_a_cap_that_nothing_is_counted_against_is_told_once(used, caps, said):
    told = untold("acp:own", Usage(**used), Caps(**caps))
    if said is None:
        assert told is None
    else:
        assert said in told and "acp:own" in told and "cap experiments or hours" in told
