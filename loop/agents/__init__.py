"""What proposes: one file per back-end behind one small interface. `make` turns a spec such as "search" into one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from loop.briefing import Briefing, Story
from loop.config import Asking
from loop.patch import Edit


class Thought(msgspec.Struct, frozen=True):
    """A piece of reasoning, as it arrives."""

    text: str


class Text(msgspec.Struct, frozen=True):
    """A piece of speech, as it arrives; markdown."""

    text: str


class ToolUse(msgspec.Struct, frozen=True):
    """One line on a tool the agent used."""

    text: str


class Status(msgspec.Struct, frozen=True):
    """One line on the back-end itself: a retry, a wait."""

    text: str


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """What a request came to, in tokens. `cached` are among `input`, reasoning is among `output`.

    `cost` is None where neither the server nor a price tells it.
    """

    input: int = 0
    cached: int = 0
    output: int = 0
    cost: float | None = None


class Draft(msgspec.Struct, frozen=True):
    """A proposal as far as it is written. `growing`: its last edit is not whole."""

    hypothesis: str = ""
    expected_effect: str = ""
    edits: tuple[Edit, ...] = ()
    growing: bool = False


class Proposal(msgspec.Struct, frozen=True):
    """A hypothesis, what it should do to the metric, and the edits that test it. Ends a turn.

    `mends`: how often the answer went back before its edits could be used.
    """

    hypothesis: str
    expected_effect: str
    edits: tuple[Edit, ...]
    mends: int = 0


class Failed(msgspec.Struct, frozen=True):
    """The turn came to nothing, told in one sentence. Ends a turn. `wait`: seconds until asking again may help.

    `away`: the agent could not be reached, which says nothing about it; it is asked again until it can.
    `mends`: how often an answer of it could not be used.
    """

    reason: str
    wait: float = 0.0
    away: bool = False
    mends: int = 0


AgentEvent = Thought | Text | ToolUse | Status | Used | Draft | Proposal | Failed


class Known(ValueError):
    """What is proposed can be run, and is so near to what was tried that the agent should hear of it, once."""


class Desk(Protocol):
    """What an agent has at hand in its turn, beside the briefing."""

    async def experiment(self, number: int) -> str:
        """A past experiment in full, in words. Raises: ValueError where there is none, in words for the agent."""
        ...

    async def nearest_failures(self) -> Sequence[Story]:
        """The failures nearest to what is worked on, nearest first."""
        ...

    async def check(self, edits: Sequence[Edit]) -> None:
        """Try edits as the engine will.

        Raises:
            ValueError: in words for the agent, which say what to mend.
            Known: at most once a turn.
        """
        ...

    async def permit(self, what: str) -> bool:
        """Whether a person lets the agent do `what` now; False, at once, where none is to be asked."""
        ...

    async def worktree(self) -> Path:
        """A folder with the files of the commit that a proposal is made against, made anew, and the agent's own."""
        ...


class Agent(Protocol):
    """A source of proposals. It touches no git, no device and no journal, and may be cancelled at any await."""

    @property
    def name(self) -> str:
        """What the cockpit and the journal call it, such as "search" or "openai:gpt-5"."""
        ...

    @property
    def repairs(self) -> bool:
        """Whether it can mend what crashed."""
        ...

    async def probe(self) -> tuple[str, ...]:
        """Try whether it answers, and say how, in sentences. Raises: Unavailable."""
        ...

    def propose(self, briefing: Briefing, desk: Desk) -> AsyncGenerator[AgentEvent, None]:
        """One turn. Yields exactly one `Proposal` or `Failed`, as the last thing."""
        ...


class UnknownAgent(ValueError):
    """No back-end answers to this spec."""


class Unavailable(ValueError):
    """The back-end lacks something of the environment, such as a key. The message says what to set."""


def make(spec: str, *, seed: int = 0, asking: Asking = Asking()) -> Agent:  # noqa: B008 - it is frozen
    """The agent that `spec` names: `search`, the offline one; `openai:MODEL`, a model behind an API; or `acp:NAME`, the
    person's own claude, codex or gemini, or any command that speaks the Agent Client Protocol.

    Back-ends are imported here, when one is asked for: their libraries cost seconds to load.

    Raises:
        UnknownAgent: with the specs that exist.
        Unavailable: with what to set.
    """
    backend, _, model = spec.partition(":")
    if spec == "search":
        from loop.agents.search import SearchAgent

        return SearchAgent(seed=seed)
    if backend == "openai" and model:
        from loop.agents.openai import OpenAIAgent

        return OpenAIAgent(model, asking=asking)
    if backend == "acp" and model:
        from loop.agents.acp import AcpAgent

        return AcpAgent(model, asking=asking)
    raise UnknownAgent(f"no agent is called {spec!r}; there are: {', '.join(SPECS)}")


SPECS = ("search", "openai:MODEL", "acp:claude", "acp:codex", "acp:gemini", "acp:COMMAND")
