"""What a model streams back -> thoughts, speech and at last one proposal. Pure, incremental, and trusting nothing."""

from __future__ import annotations

import json
import re

import msgspec
from openai.types.chat import ChatCompletionChunk

from loop.agents import AgentEvent, Proposal, Text, Thought, ToolUse
from loop.briefing import Briefing
from loop.patch import apply_edits

LONGEST_WORDS = 2000
"""Characters of a hypothesis."""

MASK = "[key]"
SECRET_FROM = 8
"""Characters from which a key is a secret. Shorter ones ("x", "none") stand for none, and masking would spoil edits."""

_FENCED = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n`]*\n(.*?)^[ \t]*```[ \t\r]*$", re.DOTALL | re.MULTILINE)


class Reply:
    """What a stream of chunks adds up to."""

    def __init__(self, key: str) -> None:
        self.size = 0
        self.finish = ""
        self._calls: dict[int, list[str]] = {}
        self._said: list[str] = []
        self._thought, self._speech = _Words(key, thinking=True), _Words(key)

    def take(self, chunk: ChatCompletionChunk) -> list[AgentEvent]:
        """The next chunk. Servers differ, so nothing of it is relied on but its shape."""
        events: list[AgentEvent] = []
        for choice in chunk.choices or ():
            if delta := choice.delta:
                extra = delta.model_extra or {}
                # vLLM, Ollama and OpenRouter say `reasoning`; DeepSeek and older vLLM `reasoning_content`.
                if reasoning := _text(extra.get("reasoning")) or _text(extra.get("reasoning_content")):
                    events += [*self._speech.feed("", final=True), *self._thought.feed(reasoning)]
                if content := _text(delta.content):
                    events += [*self._thought.feed("", final=True), *self._speech.feed(content)]
                self.size += len(reasoning) + len(content)
                for call in delta.tool_calls or ():
                    if call.index not in self._calls:
                        self._calls[call.index] = []
                        events.append(ToolUse("propose\n"))
                    arguments = _text(call.function.arguments) if call.function else ""
                    self._calls[call.index].append(arguments)
                    self.size += len(arguments)
            self.finish = _text(choice.finish_reason) or self.finish
        if self.finish:
            events += [*self._thought.feed("", final=True), *self._speech.feed("", final=True)]
        self._said += [event.text for event in events if isinstance(event, Text)]
        return events

    @property
    def proposals(self) -> list[str]:
        """JSON, as it came: the tool calls, or else the last fenced block."""
        if self._calls:
            return ["".join(arguments) for arguments in self._calls.values()]
        said = "".join(self._said)
        blocks = [block for language, block in _FENCED.findall(said) if language.lower() in ("", "json")]
        return blocks[-1:] or ([said] if said.lstrip().startswith("{") else [])

    @property
    def transcript(self) -> str:
        """The reply in words, for the model to look back at."""
        calls = [f"```json\n{call}\n```" for call in self.proposals] if self._calls else []
        return "\n\n".join(["".join(self._said), *calls]).strip() or "(nothing)"

    @property
    def cut(self) -> str:
        return "the reply was cut at the model's length limit, so say less; " if self.finish == "length" else ""


class _Words:
    """Streamed words, parted into thought and speech where a server leaves <think> tags in the content.

    A tag or the key may come in pieces, so what could begin one is held back until more comes.
    """

    def __init__(self, key: str, *, thinking: bool = False) -> None:
        self._key, self._thinking = key, thinking
        self._rest = ""
        self._blank = not thinking

    def feed(self, text: str, *, final: bool = False) -> list[Thought | Text]:
        """What can be told now. `final`: nothing follows, so all of it."""
        pieces: list[Thought | Text] = []
        rest = masked(self._rest + text, self._key)
        # Only at the very start: further on it may be a program's text.
        if self._blank and rest.lstrip().startswith("<think>"):
            self._blank, self._thinking, rest = False, True, rest.lstrip()[7:]
        if self._thinking and (at := rest.find("</think>")) >= 0:
            pieces.append(Thought(rest[:at]))
            self._thinking, rest = False, rest[at + 8 :]
        marks = [self._key, "<think>" if self._blank else "", "</think>" if self._thinking else ""]
        beginnings = (n for mark in marks for n in range(1, len(mark)) if rest.endswith(mark[:n]))
        ready = rest[: len(rest) - (0 if final else max(beginnings, default=0))]
        self._rest = rest[len(ready) :]
        self._blank = self._blank and not ready.strip()
        pieces.append(Thought(ready) if self._thinking else Text(ready))
        return [piece for piece in pieces if piece.text]


def read(reply: Reply, briefing: Briefing) -> Proposal:
    """The reply's proposal, tried on the files. Raises: ValueError, in words for the model."""
    match reply.proposals:
        case []:
            raise ValueError("there is no proposal in it: call `propose`, or end with one fenced block of JSON")
        case [raw]:
            try:
                # Not strict: many models write bare line feeds within a string, and what they mean is plain.
                proposal = msgspec.convert(json.loads(raw, strict=False), Proposal)
            except RecursionError:
                raise ValueError("the JSON is nested too deeply") from None
        case several:
            raise ValueError(f"one call of `propose` with all its edits is wanted, not {len(several)}")
    for words in (proposal.hypothesis, proposal.expected_effect):
        if not 0 < len(words.strip()) <= LONGEST_WORDS:
            raise ValueError(f"hypothesis and expected_effect want 1 to {LONGEST_WORDS} characters each")
    apply_edits(briefing.files, proposal.edits)
    return proposal


def masked(text: str, key: str) -> str:
    """`text` without the key."""
    return text.replace(key, MASK) if len(key) >= SECRET_FROM else text


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
