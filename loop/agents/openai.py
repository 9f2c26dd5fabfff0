"""The agent over an OpenAI-compatible API: OpenAI, vLLM, Ollama, DeepSeek, OpenRouter. One tool, streamed.

The endpoint is OPENAI_BASE_URL, the key OPENAI_API_KEY or what stands in the file OPENAI_API_KEY_FILE, as the engine's
environment has them. The key goes into the request's header and nowhere else: each event leaves through `_safe`.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
import openai
from openai.types.chat import ChatCompletionMessageParam

from loop.agents import AgentEvent, Failed, Proposal, Status, Unavailable
from loop.agents.prompt import SYSTEM, TOOL, ask, shorten
from loop.agents.reply import Reply, masked, read
from loop.briefing import Briefing
from loop.patch import Edit

DEFAULT_ENDPOINT = "https://api.openai.com/v1"
SET_KEY = "set OPENAI_API_KEY, or OPENAI_API_KEY_FILE to a file that holds the key, and start the engine again"
SET_ENDPOINT = "name another model with --agent openai:MODEL, or mend OPENAI_BASE_URL (most end in /v1)"
LONGEST_REPLY = 1 << 20
"""Characters."""

FOR_A_PERSON = 900.0
FOR_THE_SERVER = 60.0
"""Seconds until asking again may help, where a person has to act and where a server has to recover."""

T = TypeVar("T")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how often; times are in seconds."""

    first_word: float = 300.0
    """Long, since a model that hides its reasoning is silent while it thinks."""
    idle: float = 60.0
    turn: float = 1200.0
    attempts: int = 8
    backoff: float = 2.0
    longest_wait: float = 60.0
    repairs: int = 3


class _Trouble(Exception):
    """A request came to nothing. `again`: it may be tried in this turn; `wait`: after so many seconds, if told."""

    def __init__(self, reason: str, *, again: bool, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait = reason, again, wait


class OpenAIAgent:
    """See the module's words. It keeps nothing between turns but whether the model takes tools.

    Raises: Unavailable.
    """

    def __init__(
        self, model: str, *, limits: Limits | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._limits = limits or Limits()
        self._environment = environment
        self._endpoint = environment.get("OPENAI_BASE_URL") or DEFAULT_ENDPOINT
        # Without user and password, which a URL may carry.
        self._host = urlsplit(self._endpoint).netloc.rpartition("@")[2]
        if not self._host or not self._endpoint.startswith(("http://", "https://")):
            raise Unavailable("OPENAI_BASE_URL is no URL; one such as http://localhost:8000/v1 is wanted")
        self._tools = True
        self._key = _key(environment, self._endpoint)

    async def propose(self, briefing: Briefing) -> AsyncIterator[AgentEvent]:
        try:
            # Read anew each turn: a key file may have been mended, or its key changed.
            self._key = _key(self._environment, self._endpoint)
        except Unavailable as unavailable:
            yield Failed(str(unavailable), FOR_A_PERSON)
            return
        async with aclosing(self._turn(briefing)) as turn:
            async for event in turn:
                yield _safe(event, self._key)

    async def _turn(self, briefing: Briefing) -> AsyncGenerator[AgentEvent, None]:
        deadline = asyncio.get_running_loop().time() + self._limits.turn
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": ask(briefing)},
        ]
        replies = 1 + self._limits.repairs
        problem = ""
        outcome: Proposal | Failed | None = None
        try:
            async with openai.AsyncOpenAI(
                # Explicit, so that the SDK looks up nothing in the environment; a local endpoint takes any key.
                api_key=self._key or "none",
                base_url=self._endpoint,
                # The retries and the clocks are ours: each wait has to be seen, and the SDK's clocks see no drip.
                max_retries=0,
                timeout=openai.Timeout(None, connect=15.0),
            ) as client:
                for _ in range(replies):
                    reply = Reply(self._key)
                    async with aclosing(self._ask(client, messages, deadline)) as events:
                        async for event in events:
                            if isinstance(event, Reply):
                                reply = event
                            else:
                                yield event
                    try:
                        outcome = read(reply, briefing)
                        break
                    except ValueError as error:
                        problem = f"{reply.cut}{error}"
                    yield Status(f"the proposal goes back: {self._told(problem, 200)}\n")
                    # As plain text: servers choke on a history whose tool calls hold malformed arguments.
                    messages += [
                        {"role": "assistant", "content": reply.transcript},
                        {"role": "user", "content": f"Not usable: {problem}\n\nMend it and propose again, in full."},
                    ]
        except _Trouble as trouble:
            outcome = Failed(trouble.reason, trouble.wait)
        yield outcome or Failed(f"no usable proposal in {replies} replies; the last: {self._told(problem)}")

    async def _ask(
        self, client: openai.AsyncOpenAI, messages: list[ChatCompletionMessageParam], deadline: float
    ) -> AsyncGenerator[AgentEvent | Reply, None]:
        """One reply, which comes last, whatever number of requests it takes. Raises: _Trouble."""
        limits = self._limits
        for attempt in range(1, limits.attempts + 1):
            try:
                async with aclosing(self._stream(client, messages, deadline)) as events:
                    async for event in events:
                        yield event
                return
            except Exception as error:
                # All of them: the SDK lets through what its parser, its transport and its URL checks raise.
                trouble = self._trouble(error)
            wait = max(trouble.wait, min(limits.backoff * 2.0 ** (attempt - 1), limits.longest_wait))
            ends = asyncio.get_running_loop().time() + wait
            if not trouble.again or attempt == limits.attempts or wait > limits.longest_wait or ends > deadline:
                raise _Trouble(trouble.reason, again=False, wait=min(trouble.wait or FOR_THE_SERVER, FOR_A_PERSON))
            yield Status(f"{trouble.reason}; again in {wait:.0f} s ({attempt} of {limits.attempts})\n")
            await asyncio.sleep(wait)

    async def _stream(
        self, client: openai.AsyncOpenAI, messages: list[ChatCompletionMessageParam], deadline: float
    ) -> AsyncGenerator[AgentEvent | Reply, None]:
        """One request; its reply comes last. Only a reply that says it is finished is one: a cut stream just ends."""
        clock, limits, reply = asyncio.get_running_loop(), self._limits, Reply(self._key)
        until = clock.time() + limits.first_word

        async def within(step: Awaitable[T]) -> T:
            try:
                async with asyncio.timeout_at(min(until, deadline)):
                    return await step
            except TimeoutError:
                silence = limits.idle if reply.size else limits.first_word
                what = f"sent nothing for {silence:g} s" if until < deadline else "did not finish in the turn's time"
                raise _Trouble(f"{self._host} {what}", again=True) from None

        stream = await within(
            client.chat.completions.create(
                model=self._model, messages=messages, stream=True, tools=[TOOL] if self._tools else openai.omit
            )
        )
        async with stream:
            while not reply.finish:
                chunk = await within(anext(stream, None))
                if chunk is None:
                    if "event-stream" in stream.response.headers.get("content-type", ""):
                        raise _Trouble(f"the answer of {self._host} was cut off", again=True)
                    raise _Trouble(f"{self._host} answers, but not as a model does; {SET_ENDPOINT}", again=False)
                size = reply.size
                for event in reply.take(chunk):
                    yield event
                if reply.size > LONGEST_REPLY:
                    raise _Trouble(f"{self._model} answered with more than {LONGEST_REPLY} characters", again=False)
                if reply.size > size:
                    # Only words count: keep-alives and empty deltas would let a stalled server pass for ever.
                    until = clock.time() + limits.idle
        yield reply

    def _trouble(self, error: Exception) -> _Trouble:
        """What an exception means for the turn, and what a person can do about it."""
        match error:
            case _Trouble():
                return error
            case openai.APIStatusError(status_code=status):
                answer = f"{self._host} answered {status}: {self._said(error)}"
                if self._tools and status in (400, 404, 422) and "tool" in answer.lower():
                    self._tools = False
                    return _Trouble(f"{self._model} takes no tools here, so it is asked for JSON", again=True)
                if status in (401, 403):
                    return _Trouble(f"{answer}; {SET_KEY}", again=False, wait=FOR_A_PERSON)
                if status == 404:
                    return _Trouble(f"{answer}; {SET_ENDPOINT}", again=False, wait=FOR_A_PERSON)
                if status == 402 or error.code == "insufficient_quota":
                    advice = "the account is out of quota: add credit, or use another endpoint"
                    return _Trouble(f"{answer}; {advice}", again=False, wait=FOR_A_PERSON)
                if status in (408, 409, 425, 429) or status >= 500:
                    return _Trouble(answer, again=True, wait=_retry_after(error.response.headers))
                return _Trouble(answer, again=False, wait=FOR_A_PERSON)
            case openai.APIConnectionError():
                why = error.__cause__ or error
                return _Trouble(f"{self._host} cannot be reached: {self._told(str(why))}", again=True)
            case _:
                said = f"{type(error).__name__}: {self._said(error)}"
                return _Trouble(f"{self._host} sent no answer that can be read: {said}", again=True)

    def _said(self, error: Exception) -> str:
        """The server's own words, where it gave any."""
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, dict) else None
        return self._told(str(message or error))

    def _told(self, text: str, limit: int = 300) -> str:
        # The key goes first: half of one, left by shortening, would not be recognised.
        return shorten(masked(text, self._key), limit)


def _key(environment: Mapping[str, str], endpoint: str) -> str:
    """The key, or "" where the endpoint may do without. Raises: Unavailable, which never holds a key."""
    source, key = "OPENAI_API_KEY", environment.get("OPENAI_API_KEY", "").strip()
    if not key and (file := environment.get("OPENAI_API_KEY_FILE")):
        source = "the file OPENAI_API_KEY_FILE names"
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "it is no text"
            raise Unavailable(f"{source} cannot be read: {why}; {SET_KEY}") from None
        if not key:
            raise Unavailable(f"{source} is empty; {SET_KEY}")
    if not re.fullmatch(r"[!-~]*", key):
        # Such a header would be refused later, by an error that quotes it.
        raise Unavailable(f"{source} holds more than one word of plain ASCII, so it is no key; {SET_KEY}")
    if not key and urlsplit(endpoint).hostname == urlsplit(DEFAULT_ENDPOINT).hostname:
        raise Unavailable(f"OpenAI's API wants a key: {SET_KEY}; or set OPENAI_BASE_URL to a local endpoint")
    return key


def _safe(event: AgentEvent, key: str) -> AgentEvent:
    """The event without the key, and without lone surrogates, which JSON can hold and no file."""

    def safe(text: str) -> str:
        return masked(text, key).encode("utf-8", "replace").decode()

    match event:
        case Proposal(hypothesis, effect, edits):
            tidy = tuple(Edit(safe(edit.path), safe(edit.search), safe(edit.replace)) for edit in edits)
            return Proposal(safe(hypothesis), safe(effect), tidy)
        case Failed(reason, wait):
            return Failed(safe(reason), wait)
        case _:
            return type(event)(safe(event.text))


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds the server asks for; 0.0 where it says nothing usable. A date is allowed by HTTP."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said) if not said.endswith("GMT") else parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
