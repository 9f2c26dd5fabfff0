"""What proposes: one file per back-end behind one small interface. `make` turns a spec such as "search" into one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from loop.briefing import Briefing
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


class Proposal(msgspec.Struct, frozen=True):
    """A hypothesis, what it should do to the metric, and the edits that test it. Ends a turn."""

    hypothesis: str
    expected_effect: str
    edits: tuple[Edit, ...]


class Failed(msgspec.Struct, frozen=True):
    """The turn came to nothing, told in one sentence. Ends a turn. `wait`: seconds until asking again may help."""

    reason: str
    wait: float = 0.0


AgentEvent = Thought | Text | ToolUse | Status | Proposal | Failed


class Agent(Protocol):
    """A source of proposals. It touches no git, no device and no journal, and may be cancelled at any await."""

    @property
    def name(self) -> str:
        """What the cockpit and the journal call it, such as "search" or "openai:gpt-5"."""
        ...

    def propose(self, briefing: Briefing) -> AsyncIterator[AgentEvent]:
        """One turn. Yields exactly one `Proposal` or `Failed`, as the last thing."""
        ...


class UnknownAgent(ValueError):
    """No back-end answers to this spec."""


class Unavailable(ValueError):
    """The back-end lacks something of the environment, such as a key. The message says what to set."""


def make(spec: str, *, seed: int = 0) -> Agent:
    """The agent that `spec` names: `search`, the offline one, or `openai:MODEL`, a model behind an API.

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

        return OpenAIAgent(model)
    raise UnknownAgent(f"no agent is called {spec!r}; there are: search, openai:MODEL")
