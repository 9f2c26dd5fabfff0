"""Measurements -> verdict. Pure.

`greedy` keeps whatever is better on one seed, `margin` what is better by so much on one seed, and `confirm` what is
better beyond luck. Its rule, with d the gains over the incumbent on n common seeds and s their standard deviation:

1. Keep, from two seeds on, where Student's t = mean(d) / (s / sqrt(n)) passes its quantile at alpha / log2(cap), and
   mean(d) reaches the margin. It is looked at after each seed; the looks overlap, and weigh as much as log2(cap) that
   do not. So a proposal that is no better is kept with a probability of alpha at most, whenever one stops (alpha
   spending: Lan & DeMets 1983; equal bounds: Pocock 1977; checked by simulation).
2. Discard where, should it go on as it has gone, the chance to be kept at the cap is below `FUTILE` (conditional power:
   Lan, Simon & Halperin 1982). What is worse, or hardly better, goes after one seed.
3. Otherwise run one more seed, of both, up to the cap; what is undecided there is within noise and is discarded.
4. alpha = false_keep x SHARE / (1 - SHARE): of what is kept, `false_keep` is then truly no better, if a share SHARE of
   the proposals is better and found, and all the others are as good as the incumbent. Fewer gains make it more.
5. s pools the study's earlier differences with the candidate's own. What is kept is worth its mean over all its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import msgspec

from loop.events import Verdict
from loop.noise import Noise, estimate, t_quantile

Policy = Literal["greedy", "margin", "confirm"]
Direction = Literal["minimize", "maximize"]

SHARE = 0.1
"""The share of proposals taken to be truly better."""
FUTILE = 0.1
"""The least chance to be kept at which `confirm` still spends a trial."""
LEVEL = 0.9
"""Of the interval of a delta."""
DRIFT = 0.01
"""How often a sentinel of a steady machine raises an alarm."""
MOVED = 0.1
"""The relative change from which a side effect is told."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How a study decides. `margin` is in the metric's unit, the gain that is wanted at least; `greedy` minds none."""

    policy: Policy = "confirm"
    direction: Direction = "minimize"
    margin: float = 0.0
    false_keep: float = 0.05
    """The share of kept changes that may be no better."""
    replicates: int = 4
    """Trials of the baseline at most."""
    cap: int = 8
    """Seeds of one experiment at most."""
    simplify: bool = False
    """Whether what is equal within noise but simpler is kept."""

    @property
    def alpha(self) -> float:
        """The chance at most that a proposal is kept which is no better."""
        return self.false_keep * SHARE / (1 - SHARE)


class More(msgspec.Struct, frozen=True):
    """Undecided: a trial is wanted first."""

    of: Literal["candidate", "incumbent"]
    seed: int
    reason: str


class Judgement(msgspec.Struct, frozen=True):
    """A verdict with its reason in words. All but `pairs` is in the metric's unit.

    `delta` is the mean of candidate minus incumbent over their common seeds, `sigma` its standard error, `low` and
    `high` its 90 % interval, as wide as if the number of seeds had been fixed; None where it is not known.
    """

    verdict: Verdict
    reason: str
    delta: float | None = None
    sigma: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int = 0


def crashed(reason: str) -> Judgement:
    """The judgement of an experiment that came to no value."""
    return Judgement("crash", reason or "it came to no value")


def judge(
    candidate: Mapping[int, float],
    incumbent: Mapping[int, float],
    noise: Noise,
    rules: Rules,
    *,
    simpler: bool = False,
) -> Judgement | More:
    """What becomes of an experiment with the values `candidate` by seed, or which trial has to tell.

    Without an `incumbent` it is the baseline. `noise` is the study's, without this candidate's own differences. Only
    seeds that both have run count. `simpler`: fewer lines or less memory, for what is equal within noise.
    """
    if not incumbent:
        return _baseline(candidate, rules)
    pairs = _Pairs(candidate, incumbent, noise, rules)
    if not pairs.count:
        return _more(candidate, incumbent, "its first trial")
    if noise.none or rules.policy != "confirm":
        margin = 0.0 if rules.policy == "greedy" else rules.margin
        if 0 < pairs.gain < margin:
            return pairs.judgement("discard", f"{pairs}, less than the margin {margin:g}")
        if pairs.gain == 0 and simpler and rules.simplify:
            return pairs.judgement("keep", f"{pairs}, but simpler")
        return pairs.judgement("keep" if pairs.gain > 0 else "discard", str(pairs))
    return _confirm(pairs, candidate, incumbent, rules, simpler=simpler)


def _baseline(values: Mapping[int, float], rules: Rules) -> Judgement | More:
    """Keep the unchanged script once its noise is known well enough."""
    if not values:
        return More("candidate", 1, "the baseline")
    count = len(values)
    noise = estimate([list(values.values())])
    known = count > 1 and (noise.none or 2 * noise.limits()[1] <= rules.margin)
    if count < rules.replicates and not known and rules.policy == "confirm":
        return More("candidate", max(values) + 1, f"the baseline's noise: seed {count + 1} of {rules.replicates}")
    if count == 1:
        return Judgement("keep", "the baseline")
    spread = "the same on each" if noise.none else f"σ {noise.sigma:.2g}"
    return Judgement("keep", f"the baseline, {count} seeds, {spread}")


class _Pairs:
    """Candidate and incumbent on their common seeds. Its string tells a person how they compare."""

    def __init__(
        self, candidate: Mapping[int, float], incumbent: Mapping[int, float], noise: Noise, rules: Rules
    ) -> None:
        sign = -1.0 if rules.direction == "minimize" else 1.0
        seeds = [seed for seed in candidate if seed in incumbent]
        gains = [sign * (candidate[seed] - incumbent[seed]) for seed in seeds]
        self.sign, self.count = sign, len(gains)
        if not gains:
            return
        self.gain = sum(gains) / self.count
        self.against = sum([incumbent[seed] for seed in seeds]) / self.count
        squares = sum([(gain - self.gain) ** 2 for gain in gains])
        self.freedom = noise.paired_freedom + self.count - 1
        known = noise.paired**2 * noise.paired_freedom
        self.spread = math.sqrt((known + squares) / self.freedom) if self.freedom else 0.0
        self.error = self.spread / math.sqrt(self.count)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Of the gain."""
        if not self.freedom:
            return None
        reach = t_quantile((1 + LEVEL) / 2, self.freedom) * self.error
        return self.gain - reach, self.gain + reach

    @property
    def within(self) -> bool:
        """Whether the gain may be none at all."""
        return self.interval is None or self.interval[0] <= 0 <= self.interval[1]

    def hope(self, left: int, rules: Rules) -> bool:
        """Whether `left` more pairs that gain as much on average may well take it over the bar."""
        if not self.freedom:
            return self.gain > 0
        total = self.count + left
        bar = _bar(rules.alpha, rules.cap, self.freedom + left) * self.spread / math.sqrt(total)
        return self.gain > max(bar, rules.margin) + _FUTILE_Z * self.spread * math.sqrt(left) / total

    def judgement(self, verdict: Verdict, reason: str) -> Judgement:
        delta, interval = self.sign * self.gain, self.interval
        if interval is None:
            return Judgement(verdict, reason, delta, pairs=self.count)
        low, high = sorted(self.sign * end for end in interval)
        return Judgement(verdict, reason, delta, self.error, low, high, self.count)

    def __str__(self) -> str:
        known = self.freedom > 0 and self.error > 0
        digits = min(max(1 - math.floor(math.log10(self.error)), 0), 9) if known else 6
        size, error, sigmas = f"{abs(self.gain):.{digits}f}", "", ""
        over = "" if self.count == 1 else f" over {self.count} seeds"
        if known:
            error = "" if self.count == 1 else f" ± {self.error:.{digits}f}"
            sigmas = f" ({abs(self.gain) / self.error:.1f} σ)"
            over = over or " on the first seed"
        how = f"{size}{error} {'better' if self.gain > 0 else 'worse'} than" if self.gain else "equal to"
        return f"{how} {self.against:.{digits}f}{over}{sigmas}"


def _confirm(
    pairs: _Pairs, candidate: Mapping[int, float], incumbent: Mapping[int, float], rules: Rules, *, simpler: bool
) -> Judgement | More:
    """The sequential rule."""
    count, gain, left = pairs.count, pairs.gain, rules.cap - pairs.count
    if count >= min(2, rules.cap) and pairs.freedom:
        bar = _bar(rules.alpha, rules.cap, pairs.freedom) * pairs.error
        if gain > 0 and gain >= max(bar, rules.margin):
            return pairs.judgement("keep", str(pairs))
    simplification = rules.simplify and simpler and pairs.within
    if left <= 0:
        if simplification:
            return pairs.judgement("keep", f"within noise: {pairs}; but simpler")
    elif simplification or pairs.hope(left, rules):
        return _more(candidate, incumbent, f"{pairs}, to be confirmed")
    if count > 1 and pairs.within:
        return pairs.judgement("discard", f"within noise: {pairs}")
    return pairs.judgement("discard", f"{pairs}, too little to confirm" if gain > 0 else str(pairs))


@lru_cache(maxsize=4096)
def _bar(alpha: float, cap: int, freedom: int) -> float:
    """What t has to pass."""
    return t_quantile(1 - alpha / max(math.log2(cap), 1), freedom)


_FUTILE_Z = NormalDist().inv_cdf(FUTILE)


def _more(candidate: Mapping[int, float], incumbent: Mapping[int, float], reason: str) -> More:
    """The trial that makes the next pair: on the incumbent's seeds in their order, then on new ones, of both."""
    for seed in incumbent:
        if seed not in candidate:
            return More("candidate", seed, reason)
    for seed in candidate:
        if seed not in incumbent:
            return More("incumbent", seed, reason)
    return More("candidate", max(candidate) + 1, reason)


def drifted(latest: float, earlier: Sequence[float], noise: Noise, *, same_seed: bool = False) -> float | None:
    """By how many standard errors a re-run of the incumbent is off its `earlier` values, if that is too many for luck.

    Positive: the value has risen. Of the sentinels of a steady machine 1 % are as far off. `same_seed`: the earlier
    values are of the seed that was run again, which is the sharper test; two runs of one script on one seed differ by
    no more than two scripts do.
    """
    freedom = noise.paired_freedom if same_seed else noise.freedom
    if not earlier or not freedom:
        return None
    off = latest - sum(earlier) / len(earlier)
    error = (noise.paired / math.sqrt(2) if same_seed else noise.sigma) * math.sqrt(1 + 1 / len(earlier))
    if not error:
        return math.copysign(math.inf, off) if off else None
    return off / error if abs(off / error) > t_quantile(1 - DRIFT / 2, freedom) else None


def side_effects(candidate: Mapping[str, float], incumbent: Mapping[str, float]) -> tuple[str, ...]:
    """What else moved by more than 10 % between two summary blocks, in words: "steps −12 %"."""
    moved = []
    for name, read in _EFFECTS.items():
        new, old = read(candidate), read(incumbent)
        if new is not None and old and abs(new / old - 1) > MOVED:
            moved.append(f"{name} {100 * (new / old - 1):+.0f} %".replace("-", "−"))
    steps, batch, *_ = (any(words.startswith(name) for words in moved) for name in _EFFECTS)
    # With the same batch a step takes longer where there are fewer of them: one thing, told once.
    return tuple(words for words in moved if not (steps and not batch and words.startswith("speed")))


def _batch(summary: Mapping[str, float]) -> float | None:
    """Tokens per step, in millions."""
    tokens, steps = summary.get("total_tokens_M"), summary.get("num_steps")
    return tokens / steps if tokens and steps else None


_EFFECTS: dict[str, Callable[[Mapping[str, float]], float | None]] = {
    "steps": lambda summary: summary.get("num_steps"),
    "batch": _batch,
    "memory": lambda summary: summary.get("peak_vram_mb"),
    "speed": lambda summary: summary.get("tokens_per_second"),
    "parameters": lambda summary: summary.get("num_params_M"),
}


def over_limits(summary: Mapping[str, float], at_most: Mapping[str, float]) -> str:
    """The first limit that a summary block passes, in words; "" where it keeps to all, or does not tell."""
    for name, limit in at_most.items():
        if (value := summary.get(name)) is not None and value > limit:
            return f"{name} is {value:g}, over {limit:g}"
    return ""
