from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.judge import Judgement, More, Rules, crashed, drifted, judge, over_limits, side_effects
from loop.noise import Noise, estimate

SIGMA = 0.006
NOISE = Noise(SIGMA, 20, 0.005, 20)
"""A study that is under way: two scripts on one seed differ by 0.005 from seed to seed."""
INCUMBENT = {1: 1.5413, 2: 1.5417, 3: 1.5533, 4: 1.5537}


def better(by, seeds=None, incumbent=INCUMBENT):
    """A candidate that is better by so much on each of its seeds."""
    gains = dict(zip(seeds or incumbent, by, strict=False)) if isinstance(by, list) else dict.fromkeys(seeds, by)
    return {seed: incumbent[seed] - gain for seed, gain in gains.items()}


def run(truth, incumbent, noise, rules, trial):
    """Judge until it is decided; `trial(of, seed)` measures. Gives the judgement and the candidate's values."""
    candidate, incumbent = dict(truth), dict(incumbent)
    for _ in range(100):
        asked = judge(candidate, incumbent, noise, rules)
        if isinstance(asked, Judgement):
            return asked, candidate
        values = candidate if asked.of == "candidate" else incumbent
        assert asked.seed not in values
        values[asked.seed] = trial(asked.of, asked.seed)
    raise AssertionError("it never decides")


# One trial decides: greedy, margin


@pytest.mark.parametrize("noise", [Noise(), NOISE])
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
    ],
)
def test_a_margin_decides_on_one_trial(value, incumbent, direction, margin, verdict, delta, noise):
    rules = Rules(policy="margin", direction=direction, margin=margin)
    judged = judge({7: value}, {} if incumbent is None else {7: incumbent}, noise, rules)
    assert isinstance(judged, Judgement)
    assert judged.verdict == verdict
    assert judged.delta == (None if delta is None else pytest.approx(delta))
    assert judged.reason


def test_a_gain_within_the_margin_says_so():
    judged = judge({1: 1.45}, {1: 1.5}, Noise(), Rules(policy="margin", margin=0.1))
    assert judged.reason == "0.050000 better than 1.500000, less than the margin 0.1"


def test_greedy_keeps_any_gain_whatever_the_margin():
    assert judge({1: 1.4999}, {1: 1.5}, NOISE, Rules(policy="greedy", margin=0.1)).verdict == "keep"
    assert judge({1: 1.5}, {1: 1.5}, NOISE, Rules(policy="greedy")).verdict == "discard"


def test_what_came_to_no_value_says_why():
    assert crashed("out of memory") == Judgement("crash", "out of memory")
    assert crashed("").reason == "it came to no value"


# The baseline


def test_the_baseline_is_run_on_several_seeds():
    rules = Rules(replicates=3)
    asked = judge({1337: 1.54}, {}, Noise(), rules)
    assert (asked.of, asked.seed) == ("candidate", 1338)
    assert judge({1337: 1.54, 1338: 1.55}, {}, Noise(), rules).seed == 1339
    judged = judge({1337: 1.54, 1338: 1.55, 1339: 1.53}, {}, Noise(), rules)
    assert (judged.verdict, judged.reason) == ("keep", "the baseline, 3 seeds, σ 0.01")


def test_a_baseline_that_is_the_same_on_two_seeds_is_run_no_more():
    judged = judge({1: 1.54, 2: 1.54}, {}, Noise(), Rules())
    assert (judged.verdict, judged.reason) == ("keep", "the baseline, 2 seeds, the same on each")


def test_a_baseline_is_run_no_more_once_its_noise_is_far_below_the_margin():
    values = {1: 1.5400, 2: 1.5401, 3: 1.5402}
    assert isinstance(judge(values, {}, Noise(), Rules()), More)
    assert judge(values, {}, Noise(), Rules(margin=0.01)).verdict == "keep"


# Confirmation


def test_a_lucky_first_draw_is_not_kept():
    assert isinstance(judge(better([0.02]), INCUMBENT, NOISE, Rules()), More)
    luck = iter([0.02, 0.001, -0.002, 0.001, 0.0, 0.001, -0.001, 0.002])
    judged, _ = run({}, INCUMBENT, NOISE, Rules(), lambda of, seed: INCUMBENT.get(seed, 1.54) - next(luck))
    assert judged.verdict == "discard"


@pytest.mark.parametrize("gain", [-0.03, -0.005, 0.0, 0.0005])
def test_what_is_worse_or_hardly_better_is_gone_after_one_trial(gain):
    judged = judge(better([gain]), INCUMBENT, NOISE, Rules())
    assert (judged.verdict, judged.pairs) == ("discard", 1)


def test_a_real_gain_of_three_sigma_is_kept_within_few_trials():
    chance = random.Random(3)
    kept, trials = 0, 0
    for _ in range(300):

        def trial(of, seed):
            luck = chance.gauss(0, NOISE.paired / math.sqrt(2))
            return luck - (3 * NOISE.paired if of == "candidate" else 0.0)

        judged, candidate = run({}, {seed: trial("incumbent", seed) for seed in (1, 2, 3, 4)}, NOISE, Rules(), trial)
        kept += judged.verdict == "keep"
        trials += len(candidate)
    assert kept > 290
    assert trials / 300 < 3


def test_seeds_are_asked_in_the_incumbents_order_and_then_of_both():
    incumbent = {9: 1.5, 4: 1.5}
    seen = []

    def trial(of, seed):
        seen.append((of, seed))
        return 1.5 if of == "incumbent" else 1.49 - 0.002 * seed

    run({}, incumbent, Noise(SIGMA, 3, 0.012, 3), Rules(cap=4), trial)
    assert seen == [
        ("candidate", 9),
        ("candidate", 4),
        ("candidate", 10),
        ("incumbent", 10),
        ("candidate", 11),
        ("incumbent", 11),
    ]


def test_only_common_seeds_count():
    candidate = better(0.01, (1, 2)) | {77: 0.1}
    assert judge(candidate, INCUMBENT, NOISE, Rules(cap=2)) == judge(
        better(0.01, (1, 2)), INCUMBENT, NOISE, Rules(cap=2)
    )


def test_the_incumbent_is_asked_for_the_seed_it_lacks():
    candidate = better(0.007, (1, 2, 3, 4)) | {5: 1.5}
    asked = judge(candidate, INCUMBENT, Noise(SIGMA, 3, 0.0085, 3), Rules())
    assert (asked.of, asked.seed) == ("incumbent", 5)


def test_no_experiment_takes_more_than_the_cap():
    judged = judge(better([0.004, 0.001, 0.005, 0.0]), INCUMBENT, NOISE, Rules(cap=4))
    assert (judged.verdict, judged.pairs) == ("discard", 4)
    assert judged.reason == "within noise: 0.0025 ± 0.0024 better than 1.5475 over 4 seeds (1.1 σ)"


def test_a_gain_beyond_luck_but_below_the_margin_is_not_kept():
    candidate = better([0.010, 0.0101, 0.0099, 0.010])
    assert judge(candidate, INCUMBENT, NOISE, Rules()).verdict == "keep"
    judged = judge(candidate, INCUMBENT, NOISE, Rules(margin=0.03))
    assert judged.verdict == "discard"


def test_a_script_without_noise_is_decided_on_one_pair_by_the_margin():
    noise = estimate([[1.5, 1.5]])
    assert judge({1: 1.499}, {1: 1.5, 2: 1.5}, noise, Rules()).verdict == "keep"
    assert judge({1: 1.499}, {1: 1.5, 2: 1.5}, noise, Rules(margin=0.01)).verdict == "discard"
    assert judge({1: 1.501}, {1: 1.5, 2: 1.5}, noise, Rules()).verdict == "discard"


def test_without_any_known_noise_the_candidates_own_pairs_tell():
    assert isinstance(judge(better([0.01]), INCUMBENT, Noise(), Rules()), More)
    assert judge(better([-0.01]), INCUMBENT, Noise(), Rules()).verdict == "discard"
    steady = better([0.0100, 0.0101, 0.0099, 0.0100])
    assert judge(steady, INCUMBENT, Noise(), Rules()).verdict == "keep"


def test_what_is_equal_but_simpler_is_kept_where_that_is_wanted():
    candidate, rules = better([0.001, -0.002, 0.001, 0.0]), Rules(cap=4, simplify=True)
    assert judge(candidate, INCUMBENT, NOISE, rules).verdict == "discard"
    assert judge(candidate, INCUMBENT, NOISE, Rules(cap=4), simpler=True).verdict == "discard"
    judged = judge(candidate, INCUMBENT, NOISE, rules, simpler=True)
    assert judged.verdict == "keep"
    assert judged.reason.startswith("within noise") and judged.reason.endswith("but simpler")
    assert isinstance(judge(better([0.0]), INCUMBENT, NOISE, rules, simpler=True), More)
    assert judge(better([-0.03]), INCUMBENT, NOISE, rules, simpler=True).verdict == "discard"


def test_reasons_are_for_a_person():
    def reason(by):
        return judge(better(by), INCUMBENT, NOISE, Rules()).reason

    assert reason([-0.0041]) == "0.0041 worse than 1.5413 on the first seed (0.8 σ)"
    assert reason([0.0005]) == "0.0005 better than 1.5413 on the first seed (0.1 σ), too little to confirm"
    assert reason([0.0081]) == "0.0081 better than 1.5413 on the first seed (1.6 σ), to be confirmed"
    assert reason([0.02, 0.018, 0.019]) == "0.0190 ± 0.0028 better than 1.5454 over 3 seeds (6.9 σ)"
    assert reason([0.009, -0.009]).startswith("within noise: equal to 1.5415 over 2 seeds")
    small = Noise(1.4e-4, 20, 2e-4, 20)
    assert judge({1: 0.9701}, {1: 0.9697}, small, Rules()).reason == (
        "0.00040 worse than 0.96970 on the first seed (2.0 σ)"
    )


# What it promises


def test_a_proposal_no_better_is_kept_as_rarely_as_stated():
    chance = random.Random(11)
    rules, studies, each = Rules(false_keep=0.5), 300, 10  # a rate that a few thousand proposals can tell
    kept = 0
    for _ in range(studies):
        # Nothing is known at first but the baseline's seeds; ten proposals share an incumbent and its luck.
        incumbent = {seed: chance.gauss(0, 1) for seed in (1, 2, 3, 4)}
        noise = estimate([list(incumbent.values())])
        for _ in range(each):
            judged, _ = run({}, incumbent, noise, rules, lambda of, seed: chance.gauss(0, 1))
            kept += judged.verdict == "keep"
    count = studies * each
    assert rules.alpha == pytest.approx(0.5 / 9)
    assert kept / count < rules.alpha + 3 * math.sqrt(rules.alpha / count)


def test_the_interval_holds_the_truth_at_its_rate():
    chance = random.Random(2)
    held, studies = 0, 1500
    for _ in range(studies):
        incumbent = {seed: chance.gauss(1.5, SIGMA) for seed in (1, 2, 3)}
        candidate = {seed: chance.gauss(1.49, SIGMA) for seed in incumbent}
        noise = estimate([[chance.gauss(1.5, SIGMA) for _ in range(4)]])
        judged = judge(candidate, incumbent, noise, Rules(policy="margin"))
        assert judged.low < judged.delta < judged.high
        held += judged.low <= -0.01 <= judged.high
    assert 0.88 < held / studies < 0.92


numbers = st.floats(-1, 1).map(lambda number: round(number, 3))
by_seed = st.dictionaries(st.integers(1, 6), numbers, min_size=1, max_size=6)
noises = st.builds(Noise, st.just(0.1), st.integers(0, 9), st.floats(0.01, 1), st.integers(0, 9))


def shape(judged):
    return (type(judged), getattr(judged, "verdict", None), getattr(judged, "of", None), getattr(judged, "seed", None))


@given(by_seed, by_seed, noises, st.booleans())
def test_maximising_is_the_mirror_of_minimising(candidate, incumbent, noise, simpler):
    def mirrored(values):
        return {seed: -value for seed, value in values.items()}

    down = judge(candidate, incumbent, noise, Rules(simplify=True), simpler=simpler)
    rules = Rules(simplify=True, direction="maximize")
    up = judge(mirrored(candidate), mirrored(incumbent), noise, rules, simpler=simpler)
    assert shape(up) == shape(down)
    if isinstance(down, Judgement) and down.low is not None:
        assert (-up.delta, -up.high, -up.low) == pytest.approx((down.delta, down.low, down.high))


@given(by_seed, by_seed, noises, st.sampled_from([-8.0, 0.5, 16.0]))
def test_a_constant_added_to_all_values_changes_nothing(candidate, incumbent, noise, constant):
    # Powers of two times thousandths: what is exactly equal must stay so.
    def moved(values):
        return {seed: round(value * 1024) / 1024 + constant for seed, value in values.items()}

    exact = [{seed: value - constant for seed, value in moved(values).items()} for values in (candidate, incumbent)]
    first, second = judge(*exact, noise, Rules()), judge(moved(candidate), moved(incumbent), noise, Rules())
    assert shape(first) == shape(second)
    assert getattr(first, "delta", None) == getattr(second, "delta", None)


@given(by_seed, by_seed, noises, st.sampled_from([0.25, 2.0, 1024.0]))
def test_values_and_noise_in_another_unit_scale_the_delta(candidate, incumbent, noise, factor):
    def scaled(values):
        return {seed: value * factor for seed, value in values.items()}

    larger = Noise(noise.sigma * factor, noise.freedom, noise.paired * factor, noise.paired_freedom)
    first = judge(candidate, incumbent, noise, Rules(margin=0.125))
    second = judge(scaled(candidate), scaled(incumbent), larger, Rules(margin=0.125 * factor))
    assert shape(first) == shape(second)
    if isinstance(first, Judgement) and first.sigma is not None:
        assert (second.delta, second.sigma) == pytest.approx((first.delta * factor, first.sigma * factor))


@given(by_seed, by_seed, noises, st.integers(1, 6), st.floats(0, 0.5))
def test_every_study_is_decided_within_the_cap(candidate, incumbent, noise, cap, margin):
    judged, tried = run(candidate, incumbent, noise, Rules(cap=cap, margin=margin), lambda of, seed: seed % 3 / 10)
    assert judged.verdict in ("keep", "discard")
    assert len(tried) <= max(len(candidate) + 1, cap + len(set(candidate) - set(incumbent)))


# Beside the metric


def test_a_sentinel_far_off_is_drift():
    earlier = list(INCUMBENT.values())
    assert drifted(1.5480, earlier, NOISE) is None
    assert drifted(1.5900, earlier, NOISE) == pytest.approx(6.3, abs=0.1)
    assert drifted(1.5000, earlier, NOISE) < 0
    assert drifted(1.5900, earlier, Noise()) is None
    assert drifted(1.5900, [], NOISE) is None


def test_the_same_seed_again_is_the_sharper_test():
    noise = Noise(0.006, 20, 0.003, 20)
    assert drifted(1.5550, [1.5413], noise) is None
    assert drifted(1.5550, [1.5413], noise, same_seed=True) == pytest.approx(4.6, abs=0.1)


def test_any_move_of_a_script_without_noise_is_drift():
    assert drifted(1.5, [1.5, 1.5], estimate([[1.5, 1.5]])) is None
    assert drifted(1.4, [1.5, 1.5], estimate([[1.5, 1.5]])) == -math.inf


def test_a_steady_machine_raises_few_alarms():
    chance = random.Random(4)
    alarms = sum(
        drifted(chance.gauss(0, 1), [chance.gauss(0, 1) for _ in range(3)], Noise(1.0, 500)) is not None
        for _ in range(4000)
    )
    assert 0.005 < alarms / 4000 < 0.015


def test_side_effects_are_what_else_moved_by_a_tenth():
    before = {
        "num_steps": 1000.0,
        "total_tokens_M": 500.0,
        "peak_vram_mb": 45000.0,
        "tokens_per_second": 1e6,
        "num_params_M": 50.0,
    }
    after = before | {"num_steps": 880.0, "peak_vram_mb": 49000.0, "num_params_M": 80.0}
    assert side_effects(after, before) == ("steps −12 %", "batch +14 %", "parameters +60 %")
    assert side_effects(before, before) == side_effects({}, before) == side_effects(before, {}) == ()
    assert side_effects(before, before | {"num_steps": 0.0, "peak_vram_mb": 0.0}) == ()


def test_the_first_limit_that_is_passed_is_told():
    at_most = {"peak_vram_mb": 40000.0, "num_params_M": 60.0}
    assert over_limits({"peak_vram_mb": 45000.0, "num_params_M": 80.0}, at_most) == "peak_vram_mb is 45000, over 40000"
    assert over_limits({"num_params_M": 60.0}, at_most) == ""
