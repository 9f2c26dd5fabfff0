from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.noise import Noise, chi_square_quantile, estimate, t_quantile

FIVE_SEEDS = [1.5413, 1.5417, 1.5533, 1.5537, 1.5456]
values = st.floats(-1000, 1000)
groups = st.lists(st.lists(values, max_size=5), max_size=4)


def test_seeds_of_one_script_tell_how_much_a_trial_differs():
    noise = estimate([FIVE_SEEDS])
    assert noise.sigma == pytest.approx(0.00606, abs=1e-5)
    assert noise.freedom == 4
    assert (noise.paired, noise.paired_freedom) == (pytest.approx(math.sqrt(2) * noise.sigma), 4)


def test_a_difference_over_the_same_seeds_is_surer_than_one_over_others():
    noise = Noise(sigma=0.004, freedom=3, paired=0.002, paired_freedom=3)
    assert noise.between([1, 2], [2, 1]) == pytest.approx(0.002 / 2**0.5)
    assert noise.between([1, 2], [3, 4]) == pytest.approx(0.004)


@pytest.mark.parametrize("replicates", [[], [[]], [[1.5]], [[1.5], [1.2]]])
def test_no_repetition_tells_nothing(replicates):
    assert estimate(replicates) == Noise()
    assert estimate(replicates).limits() == (0.0, math.inf)
    assert not estimate(replicates).none


def test_equal_values_over_seeds_mean_that_there_is_no_noise():
    noise = estimate([[0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2]])
    assert noise == Noise(0.0, 2, 0.0, 2)
    assert noise.none
    assert noise.limits() == (0.0, 0.0)


def test_scripts_are_pooled_and_their_distance_is_no_noise():
    assert estimate([[1.0, 3.0], [101.0, 103.0, 105.0]]) == Noise(math.sqrt(10 / 3), 2, math.sqrt(20 / 3), 2)


def test_many_scripts_on_the_same_seeds_know_no_more_of_seeds_than_one():
    assert estimate([[1.0, 1.3, 1.1]] * 30).freedom == 2


def test_few_differences_are_pooled_with_the_bound_from_seeds_and_more_stand_alone():
    seeds = [[1.0, 1.2, 1.4, 1.6]]
    bound = estimate(seeds)
    few = estimate(seeds, [[0.010, 0.012, 0.014]])
    assert few.paired_freedom == bound.freedom + 2
    assert few.paired == pytest.approx(bound.paired * math.sqrt(3 / 5), rel=1e-3)
    many = estimate(seeds, [[0.010, 0.012, 0.014], [0.2, 0.202]])
    assert (many.paired, many.paired_freedom) == (pytest.approx(0.0018, abs=1e-4), 3)
    assert many.sigma == bound.sigma


def test_the_limits_hold_the_truth_at_their_rate():
    chance = random.Random(5)
    held = 0
    for _ in range(2000):
        low, high = estimate([[chance.gauss(0, 0.006) for _ in range(4)]]).limits()
        held += low <= 0.006 <= high
    assert 0.87 < held / 2000 < 0.93


def test_quantiles_are_the_tables_ones():
    assert t_quantile(0.975, 4) == pytest.approx(2.776, abs=1e-3)
    assert chi_square_quantile(0.95, 4) == pytest.approx(9.488, abs=1e-3)


@given(groups, groups, values)
def test_a_constant_moves_no_estimate(replicates, differences, constant):
    moved = estimate([[value + constant for value in group] for group in replicates], differences)
    noise = estimate(replicates, differences)
    assert moved.freedom == noise.freedom
    assert moved.sigma == pytest.approx(noise.sigma, abs=1e-9)
    assert moved.paired == pytest.approx(noise.paired, abs=1e-9)


def test_a_viewer_may_import_it_cheaply():
    code = "import sys, loop.noise; print(*sorted(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert not set(done.stdout.split()) & {"scipy", "numpy"}
