"""How much of a value is luck, and how well that is known. Pure; scipy is loaded by the first quantile.

The model: value = what the script is worth + what the seed adds to any script + a rest. Two scripts on one seed share
the seed's part, so that their difference is steadier than either of them; how much steadier, confirmations tell.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import lru_cache

import msgspec


class Noise(msgspec.Struct, frozen=True):
    """Standard deviations in the metric's unit, each with its degrees of freedom (0: unknown)."""

    sigma: float = 0.0
    """Of one script's value from seed to seed."""
    freedom: int = 0
    paired: float = 0.0
    """Of the difference of two scripts on one seed."""
    paired_freedom: int = 0

    @property
    def none(self) -> bool:
        """Measured, and there is none: the script gives the same value on any seed."""
        return self.paired_freedom > 0 and self.paired == 0

    def between(self, own: Collection[int], other: Collection[int]) -> float:
        """The standard error of the difference of two scripts' means over these seeds: those of both cancel out."""
        rest = self.paired**2 / 2
        from_seeds = max(0.0, self.sigma**2 - rest)
        common = len(set(own) & set(other)) / (len(own) * len(other))
        each = 1 / len(own) + 1 / len(other)
        return math.sqrt(rest * each + from_seeds * (each - 2 * common))

    def limits(self, level: float = 0.9) -> tuple[float, float]:
        """Between which values `sigma` lies with probability `level`, by the chi-square of its freedom."""
        if not self.freedom:
            return 0.0, math.inf
        tail = (1 - level) / 2
        squares = self.sigma**2 * self.freedom
        low, high = (squares / chi_square_quantile(share, self.freedom) for share in (1 - tail, tail))
        return math.sqrt(low), math.sqrt(high)


def estimate(replicates: Sequence[Sequence[float]], differences: Sequence[Sequence[float]] = ()) -> Noise:
    """The noise in `replicates` (one script's values over several seeds, a group per script) and in `differences`
    (candidate minus incumbent, seed by seed, a group per experiment): variances within groups, pooled.

    Scripts run on the same seeds, so that many of them know hardly more of what seeds do than the one with the most.
    Two independent values differ with a variance of 2 sigma², two that share a seed with no more. That bound stands in
    for the differences, with the freedom of the replicates, until they have as much of their own: at first too careful,
    then sharp. A group of one tells nothing.
    """
    squares, count = _within(replicates)
    variance = squares / count if count else 0.0
    freedom = max((len(group) - 1 for group in replicates if group), default=0)
    own, own_freedom = _within(differences)
    if own_freedom < freedom:
        own, own_freedom = own + freedom * 2 * variance, own_freedom + freedom
    return Noise(math.sqrt(variance), freedom, math.sqrt(own / own_freedom) if own_freedom else 0.0, own_freedom)


def _within(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """The squared distances from each group's mean, summed, and their degrees of freedom."""
    squares, freedom = 0.0, 0
    for group in groups:
        count = len(group)
        if count > 1 and any(value != group[0] for value in group):  # equal ones have a mean that rounding moves
            mean = sum(group) / count
            squares += sum([(value - mean) ** 2 for value in group])
        freedom += max(count - 1, 0)
    return squares, freedom


@lru_cache(maxsize=4096)
def t_quantile(share: float, freedom: int) -> float:
    """What Student's t stays below with probability `share`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, share))


@lru_cache(maxsize=4096)
def chi_square_quantile(share: float, freedom: int) -> float:
    """What the chi-square stays below with probability `share`."""
    from scipy.special import chdtri

    return float(chdtri(freedom, 1 - share))
