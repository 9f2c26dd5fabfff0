"""What a model streams back -> thoughts, speech and calls of tools, whatever the protocol; and of these one proposal.

Pure, incremental, and trusting nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jiter
import msgspec
from msgspec.structs import replace

from loop.agents import AgentEvent, Draft, Failed, Proposal, Text, Thought, ToolUse, Used
from loop.agents.prompt import PROPOSE, TOOLS
from loop.briefing import shorten
from loop.patch import Edit

LONGEST_WORDS = 2000
"""Characters of a hypothesis."""

MASK = "[key]"
SECRET_FROM = 8
"""Characters from which a key is a secret. Shorter ones ("x", "none") stand for none, and masking would spoil edits."""

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n`]*\n(.*?)^[ \t]*```[ \t\r]*$", re.DOTALL | re.MULTILINE)


class Trouble(Exception):
    """A request came to nothing. `again`: it may be tried in this turn, `at_once` or after `wait` seconds, if told."""

    def __init__(
        self, reason: str, *, again: bool, wait: float = 0.0, at_once: bool = False, away: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait, self.at_once, self.away = reason, again, wait, at_once, away


def text(value: object) -> str:
    """What a server sent for text; "" where it is none."""
    return value if isinstance(value, str) else ""


def used(into: object, details: Any, out: object, *, cost: float | None = None) -> Used:
    """Tokens as a server counts them, where it does; `details` tell how many of those in it had cached."""
    count, cached, output = (
        n if isinstance(n, int) and n > 0 else 0 for n in (into, details and details.cached_tokens, out)
    )
    return Used(input=count, cached=cached, output=output, cost=cost)


class Call(msgspec.Struct):
    """A call of a tool as it grows. `extra` is what a server wants back with it."""

    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = {}

    @property
    def known(self) -> dict[str, Any] | None:
        """The arguments, where they are a JSON object."""
        try:
            # Not strict: many models write bare line feeds within a string, and what they mean is plain.
            found = json.loads(self.arguments or "{}", strict=False)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


class Told(msgspec.Struct):
    """Words to the model."""

    text: str


class Shown(msgspec.Struct):
    """What a call of a tool brought."""

    call: str
    text: str


class Reply:
    """What a stream adds up to. It is one only once `finish` says so: a cut stream just ends."""

    def __init__(self, key: str) -> None:
        self.size = 0
        """Characters so far."""
        self.finish = ""
        self.used: Used | None = None
        self.refused = False
        self.calls: dict[int, Call] = {}
        self.plain = False
        """Whether it goes back to the model as mere words: servers choke on calls with malformed arguments."""
        self.carried: list[Any] = []
        """What the server wants back with a call of a tool, such as its reasoning, encrypted."""
        self.thoughts: dict[str, str] = {}
        """Reasoning, by the name that the server has for it."""
        self._said: list[str] = []
        self._thought, self._speech = _Words(Masking(key), thinking=True), _Words(Masking(key))

    def think(self, text: str) -> list[AgentEvent]:
        self.size += len(text)
        return [*self._tell(self._speech.feed("", final=True)), *self._tell(self._thought.feed(text))] if text else []

    def say(self, text: str) -> list[AgentEvent]:
        self.size += len(text)
        return [*self._tell(self._thought.feed("", final=True)), *self._tell(self._speech.feed(text))] if text else []

    def call(self, at: int, *, id: str = "", name: str = "", arguments: str = "") -> list[AgentEvent]:
        """More of the call at place `at`."""
        new = at not in self.calls
        call = self.calls.setdefault(at, Call())
        call.id, call.name = id or call.id, name or call.name
        call.arguments += arguments
        self.size += len(arguments)
        return [ToolUse(f"{PROPOSE}\n")] if new and call.name in ("", PROPOSE) else []

    def end(self, finish: str) -> list[AgentEvent]:
        self.finish = finish
        words = self._thought.feed("", final=True), self._speech.feed("", final=True)
        return [event for said in words for event in self._tell(said)]

    def _tell(self, events: list[Thought | Text]) -> list[AgentEvent]:
        self._said += [event.text for event in events if isinstance(event, Text)]
        return [*events]

    @property
    def said(self) -> str:
        return "".join(self._said)

    @property
    def looks(self) -> list[Call]:
        """Calls that only read; none where something is proposed as well."""
        calls = [*self.calls.values()]
        reading = [call for call in calls if call.name not in ("", PROPOSE)]
        return reading if len(reading) == len(calls) else []

    @property
    def proposals(self) -> list[str]:
        """JSON, as it came: the calls of the tool, or else the last fenced block."""
        if self.calls:
            return [call.arguments for call in self.calls.values() if call.name in ("", PROPOSE)]
        said = self.said
        blocks = [block for language, block in _FENCED.findall(said) if language.lower() in ("", "json")]
        return blocks[-1:] or ([said] if said.lstrip().startswith("{") else [])

    @property
    def draft(self) -> Draft | None:
        """What the call of `propose` holds so far; None while nothing of it can be told."""
        written = next((call.arguments for call in self.calls.values() if call.name in ("", PROPOSE)), "")
        raw = written.encode("utf-8", "replace")
        try:
            whole, so_far = (_drafted(jiter.from_json(raw, partial_mode=mode)) for mode in ("on", "trailing-strings"))
        except ValueError:
            return None
        return replace(so_far, growing=len(so_far.edits) > len(whole.edits))

    @property
    def transcript(self) -> str:
        """The reply in words, for the model to look back at."""
        calls = [f"```json\n{call.arguments}\n```" for call in self.calls.values()]
        return "\n\n".join([self.said, *calls]).strip() or "(nothing)"

    @property
    def cut(self) -> str:
        return "the reply was cut at the model's length limit, so say less; " if self.finish == "length" else ""


Item = Told | Shown | Reply
"""Of a conversation."""


class Masking:
    """Masks secrets in a text that comes in pieces.

    What could begin a secret is held back until more comes, and what could be most of one even where nothing does.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets = [secret for secret in secrets if len(secret) >= SECRET_FROM]
        self._rest = ""

    def feed(self, text: str, *, final: bool = False) -> str:
        """What can be told now. `final`: other words come between, or none."""
        rest = masked(self._rest + text, *self._secrets)
        held = _begun(rest, self._secrets)
        if final and held < SECRET_FROM:
            held = 0
        self._rest = rest[len(rest) - held :]
        return rest[: len(rest) - held]


def _begun(text: str, marks: Sequence[str]) -> int:
    """How many of the last characters of `text` begin one of `marks`."""
    return max((n for mark in marks for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)


class _Words:
    """Streamed words, parted into thought and speech where a server leaves <think> tags in the content.

    A tag may come in pieces, so what could begin one is held back until more comes.
    """

    def __init__(self, masking: Masking, *, thinking: bool = False) -> None:
        self._masking, self._thinking = masking, thinking
        self._rest = ""
        self._blank = not thinking

    def feed(self, text: str, *, final: bool = False) -> list[Thought | Text]:
        """What can be told now. `final`: nothing follows, so all of it."""
        pieces: list[Thought | Text] = []
        rest = self._rest + self._masking.feed(text, final=final)
        # Only at the very start: further on it may be a program's text.
        if self._blank and rest.lstrip().startswith("<think>"):
            self._blank, self._thinking, rest = False, True, rest.lstrip()[7:]
        if self._thinking and (at := rest.find("</think>")) >= 0:
            pieces.append(Thought(rest[:at]))
            self._thinking, rest = False, rest[at + 8 :]
        marks = ("<think>" if self._blank else "", "</think>" if self._thinking else "")
        ready = rest[: len(rest) - (0 if final else _begun(rest, marks))]
        self._rest = rest[len(ready) :]
        self._blank = self._blank and not ready.strip()
        pieces.append(Thought(ready) if self._thinking else Text(ready))
        return [piece for piece in pieces if piece.text]


class _Wanted(msgspec.Struct):
    """The arguments of `propose`."""

    hypothesis: str
    expected_effect: str
    edits: tuple[Edit, ...]


def _drafted(arguments: Any) -> Draft:
    """Of arguments that are cut short, all but the edits of which something is missing. Raises: ValueError."""
    edits = arguments.get("edits", ()) if isinstance(arguments, dict) else ()
    told = [edit for edit in edits if isinstance(edit, dict) and edit.keys() >= {"path", "search", "replace"}]
    return msgspec.convert({**arguments, "edits": told} if edits else arguments, Draft)


def read(reply: Reply) -> Proposal:
    """The reply's proposal, its edits untried. Raises: ValueError, in words for the model."""
    if reply.refused:
        raise ValueError("it was a refusal; propose a change of the editable files that the spec allows")
    if unknown := [call.name for call in reply.calls.values() if call.name and call.name not in TOOLS]:
        raise ValueError(f"there is no tool {unknown[0][:60]}; there are: {', '.join(TOOLS)}")
    match reply.proposals:
        case []:
            raise ValueError("there is no proposal in it: call `propose`, or end with one fenced block of JSON")
        case [raw]:
            try:
                wanted = msgspec.convert(json.loads(raw, strict=False), _Wanted)
            except RecursionError:
                raise ValueError("the JSON is nested too deeply") from None
        case several:
            raise ValueError(f"one call of `propose` with all its edits is wanted, not {len(several)}")
    return worded(wanted.hypothesis, wanted.expected_effect, wanted.edits)


def worded(hypothesis: str, effect: str, edits: tuple[Edit, ...]) -> Proposal:
    """A proposal that a person can read. Raises: ValueError."""
    for words in (hypothesis, effect):
        if not 0 < len(words.strip()) <= LONGEST_WORDS:
            raise ValueError(f"hypothesis and expected_effect want 1 to {LONGEST_WORDS} characters each")
    return Proposal(hypothesis, effect, edits)


def masked(text: str, *secrets: str) -> str:
    """`text` without keys."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK) if len(secret) >= SECRET_FROM else text
    return text


def excerpt(text: str, secrets: Sequence[str], limit: int = 300) -> str:
    """`text` on one line of at most `limit` characters, without keys."""
    # They go first: half of one, left by shortening, would not be recognised.
    return shorten(masked(text, *secrets), limit)


def safe(event: AgentEvent, *secrets: str) -> AgentEvent:
    """The event without keys, and without lone surrogates, which JSON can hold and no file."""

    def tidy(text: str) -> str:
        return masked(text, *secrets).encode("utf-8", "replace").decode()

    match event:
        case Draft(hypothesis, effect, edits) | Proposal(hypothesis, effect, edits):
            edits = tuple(Edit(tidy(edit.path), tidy(edit.search), tidy(edit.replace)) for edit in edits)
            hypothesis, effect = tidy(hypothesis), tidy(effect)
            if isinstance(event, Draft):  # It may go on with the rest of a key.
                hypothesis, effect = (text[: len(text) - _begun(text, secrets)] for text in (hypothesis, effect))
            return replace(event, hypothesis=hypothesis, expected_effect=effect, edits=edits)
        case Failed(reason):
            return replace(event, reason=tidy(reason))
        case Used():
            return event
        case _:
            return replace(event, text=tidy(event.text))


def priced(used: Used, prices: Mapping[str, float]) -> Used:
    """With its cost, where the server told none and there are prices of a million tokens."""
    if used.cost is not None or not {"input", "output"} <= set(prices):
        return used
    cached = prices.get("cached", prices["input"])
    fresh = max(0, used.input - used.cached)
    cost = (fresh * prices["input"] + used.cached * cached + used.output * prices["output"]) / 1e6
    return Used(input=used.input, cached=used.cached, output=used.output, cost=cost)
