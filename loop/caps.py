"""What a study may come to in all, and how much of it is left. Pure."""

from __future__ import annotations

from loop.config import Asking, Caps
from loop.state import StudyState, Usage


def left(state: StudyState, caps: Caps, now: float) -> tuple[str, ...]:
    """What is left of each cap and of what the engine was asked for, in words. `now`: seconds since the epoch."""
    said = []
    if state.limit is not None:
        said.append(f"{max(0, state.limit - state.tried)} experiments of this run")
    for name, used, most in _each(state, caps, Usage(), now):
        said.append(
            f"{_amount(name, max(0.0, most - used))} of {_amount(name, most)} {name}".replace(" cost", " of cost")
        )
    return tuple(said)


def reached(state: StudyState, caps: Caps, now: float, turn: Usage = Usage()) -> str | None:  # noqa: B008 - it is frozen
    """Which cap is reached, in a sentence; None: none is. `turn`: what is used and not in the state yet."""
    for name, used, most in _each(state, caps, turn, now):
        if used >= most:
            return (
                f"its cap is reached, {_amount(name, used)} of {_amount(name, most)} {name}; "
                "to go on, raise it under [tool.labtop.caps]"
            )
    return None


def doubt(agent: str, caps: Caps, asking: Asking) -> str | None:
    """Why a cap may not hold with this agent, in a sentence that says what to do; None: it will."""
    if caps.cost is None or agent == "search" or {"input", "output"} <= set(asking.prices):
        return None
    return (
        f"the cap of {_amount('cost', caps.cost)} on cost holds only as far as {agent} or its server tells what a turn "
        "costs, since there are no prices: set input and output under [tool.labtop.asking.prices], or cap tokens"
    )


def untold(agent: str, used: Usage, caps: Caps) -> str | None:
    """Why a cap does not hold after the agent's first turn, in which it told no tokens; None: it does."""
    capped = " and ".join(name for name in ("tokens", "cost") if getattr(caps, name) is not None)
    if not capped or used.turns != 1 or used.tokens or used.cost:
        return None
    return (
        f"{agent} did not tell how many tokens its turn came to, so the cap on {capped} does not hold: "
        "cap experiments or hours under [tool.labtop.caps]"
    )


def _each(state: StudyState, caps: Caps, turn: Usage, now: float) -> list[tuple[str, float, float]]:
    hours = (state.ran + (max(0.0, now - state.time) if state.mode == "running" else 0.0)) / 3600
    used = state.used
    known: tuple[tuple[str, float, float | None], ...] = (
        ("experiments", state.tried, caps.experiments),
        ("hours", hours, caps.hours),
        ("tokens", used.tokens + turn.tokens, caps.tokens),
        ("cost", used.cost + turn.cost, caps.cost),
    )
    return [(name, value, most) for name, value, most in known if most is not None]


def _amount(name: str, value: float) -> str:
    return f"{value:.2f}" if name in ("hours", "cost") else f"{value:,.0f}"
