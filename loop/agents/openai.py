"""The agent over an OpenAI-compatible API: OpenAI, vLLM, Ollama, llama.cpp, LM Studio, DeepSeek, OpenRouter.

A turn is a short conversation: the model may read, then it proposes, and what cannot be used goes back to it. Which of
the two protocols carries it is a matter of `chat` and `responses`; clocks, retries and prices are one for both.

The endpoint is OPENAI_BASE_URL, the key OPENAI_API_KEY or what stands in the file OPENAI_API_KEY_FILE, as the engine's
environment has them. The key goes into the request's header and nowhere else: each event leaves through `safe`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from loop.agents import (
    AgentEvent,
    Desk,
    Failed,
    Known,
    Proposal,
    Status,
    Text,
    Thought,
    ToolUse,
    Unavailable,
    Used,
    chat,
    responses,
)
from loop.agents.prompt import PROBE, PROPOSE, TOOLS, read_file
from loop.agents.reply import Call, Item, Reply, Shown, Told, Trouble, excerpt, masked, priced, read, safe
from loop.briefing import Briefing, compose, shorten
from loop.config import Asking

DEFAULT_ENDPOINT = "https://api.openai.com/v1"
SET_KEY = "set OPENAI_API_KEY, or OPENAI_API_KEY_FILE to a file that holds the key, and start the engine again"
SET_ENDPOINT = "name another model with --agent openai:MODEL, or mend OPENAI_BASE_URL (most end in /v1)"
LONGEST_REPLY = 1 << 20
"""Characters."""

FOR_A_PERSON = 900.0
FOR_THE_SERVER = 60.0
"""Seconds until asking again may help, where a person has to act and where a server has to recover."""

DRAFT_EVERY = 0.5
"""Seconds between two looks at what is written of a proposal, which goes through all of it."""

FOR_THE_USAGE = 5.0
"""Seconds that a server may take, once it has said everything, to tell what that came to."""

OPTIONS = ("tool", "stream_options", "reasoning")
"""What a server may not take, as its refusal names it; then it is asked without."""

Protocol = Literal["chat", "responses"]
MODULES: dict[Protocol, Any] = {"chat": chat, "responses": responses}
TITLES: dict[Protocol, str] = {"chat": "Chat Completions", "responses": "the Responses API"}

T = TypeVar("T")


class OpenAIAgent:
    """See the module's words. Between turns it keeps only what it has found out about the server.

    Raises: Unavailable.
    """

    repairs = True

    def __init__(
        self, model: str, *, asking: Asking | None = None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self.name = f"openai:{model}"
        self._model = model
        self._asking = asking or Asking()
        self._environment = environment
        self._endpoint = environment.get("OPENAI_BASE_URL") or DEFAULT_ENDPOINT
        # Without user and password, which a URL may carry.
        self._host = urlsplit(self._endpoint).netloc.rpartition("@")[2]
        if not self._host or not self._endpoint.startswith(("http://", "https://")):
            raise Unavailable("OPENAI_BASE_URL is no URL; one such as http://localhost:8000/v1 is wanted")
        self._without: set[str] = set()
        self._protocol: Protocol = "responses" if self._host == urlsplit(DEFAULT_ENDPOINT).netloc else "chat"
        self._settled = False
        """Whether the server has answered by this protocol, or the settings name it."""
        if self._asking.protocol != "auto":
            self._protocol, self._settled = self._asking.protocol, True
        self._first_refusal: Trouble | None = None
        """Of the one protocol, while the other is tried."""
        self._key = _key(environment, self._endpoint)

    async def propose(self, briefing: Briefing, desk: Desk) -> AsyncGenerator[AgentEvent, None]:
        try:
            # Read anew each turn: a key file may have been mended, or its key changed.
            self._key = _key(self._environment, self._endpoint)
        except Unavailable as unavailable:
            yield Failed(str(unavailable), FOR_A_PERSON)
            return
        async with aclosing(self._turn(briefing, desk)) as turn:
            async for event in turn:
                yield safe(event, self._key)

    async def probe(self) -> tuple[str, ...]:
        """Ask the model for next to nothing, and say in sentences how it answers. Raises: Unavailable."""
        began, first, thought = time.monotonic(), 0.0, False
        reply = Reply(self._key)
        try:
            async with self._client() as client, aclosing(self._ask(client, [Told(PROBE)], [PROPOSE], began)) as events:
                async for event in events:
                    first = first or (time.monotonic() if isinstance(event, Thought | Text | ToolUse) else 0.0)
                    thought = thought or isinstance(event, Thought)
                    reply = event if isinstance(event, Reply) else reply
        except Trouble as trouble:
            raise Unavailable(masked(trouble.reason, self._key)) from None
        said = [f"{self._host} answers by {TITLES[self._protocol]}, the first word after {first - began:.1f} s"]
        said.append("it calls tools" if reply.calls else "it calls no tools, so that it is read for a block of JSON")
        said.append("it shows its reasoning" if thought else "it shows no reasoning")
        if reply.used is None:
            said.append("it does not tell how many tokens were used, so that no cap on them can hold")
        elif priced(reply.used, self._asking.prices).cost is None:
            said.append("its cost is not known; prices under [tool.labtop.asking] would tell it")
        return tuple(masked(line, self._key) for line in said)

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            # Explicit, so that the SDK looks up nothing in the environment; a local endpoint takes any key.
            api_key=self._key or "none",
            base_url=self._endpoint,
            # The retries and the clocks are ours: each wait has to be seen, and the SDK's clocks see no drip.
            max_retries=0,
            timeout=openai.Timeout(None, connect=15.0),
            http_client=openai.DefaultAsyncHttpxClient(verify=_trusted()),
        )

    async def _turn(self, briefing: Briefing, desk: Desk) -> AsyncGenerator[AgentEvent, None]:
        asking, began = self._asking, asyncio.get_running_loop().time()
        items: list[Item] = [Told(compose(briefing, asking.briefing, await desk.nearest_failures()))]
        looks, mends, spent, problem = 0, 0, 0, ""
        outcome: Proposal | Failed | None = None
        try:
            async with self._client() as client:
                while outcome is None and mends <= asking.mends:
                    if spent > asking.turn_tokens:
                        outcome = Failed(f"the turn was ended after {spent} tokens, over {asking.turn_tokens}")
                        break
                    reply = Reply(self._key)
                    tools = list(TOOLS) if looks < asking.looks else [PROPOSE]
                    async with aclosing(self._ask(client, items, tools, began)) as events:
                        async for event in events:
                            if isinstance(event, Reply):
                                reply = event
                                continue
                            if isinstance(event, Used):
                                spent += event.input + event.output
                            yield event
                    if (calls := reply.looks) and looks < asking.looks and _well_formed(calls):
                        items.append(reply)
                        for call in calls:
                            looks += 1
                            said, shown = await self._look(call, briefing, desk)
                            yield ToolUse(f"{said}\n")
                            items.append(Shown(call.id, shown))
                        continue
                    try:
                        proposal = read(reply)
                        await desk.check(proposal.edits)
                        outcome = Proposal(proposal.hypothesis, proposal.expected_effect, proposal.edits, mends)
                        break
                    except Known as known:
                        problem = str(known)
                        yield Status("the proposal goes back once: something like it was tried\n")
                    except ValueError as error:
                        mends += 1
                        problem = f"Not usable: {reply.cut}{error}\n\nMend it and propose again, in full."
                        yield Status(f"the proposal goes back: {self._told(f'{reply.cut}{error}', 200)}\n")
                    reply.plain = True
                    items += [reply, Told(problem)]
        except Trouble as trouble:
            outcome = Failed(trouble.reason, trouble.wait, trouble.away, mends)
        said = f"no usable proposal in {mends} replies; the last: {self._told(problem)}"
        yield outcome or Failed(said, mends=mends)

    async def _look(self, call: Call, briefing: Briefing, desk: Desk) -> tuple[str, str]:
        """What a call reads: a line on it, and what it brings."""
        wanted = call.known or {}
        try:
            if call.name == "read_file":
                path, first = str(wanted.get("path", "")), wanted.get("first")
                said = f"read_file {shorten(path, 100)}"
                return said, read_file(briefing, path, first if isinstance(first, int) else 1)
            number = wanted.get("number")
            said = f"{call.name[:40]} {number}"
            if call.name != "read_experiment":
                raise ValueError(f"there is no tool {call.name[:60]}; there are: {', '.join(TOOLS)}")
            if not isinstance(number, int):
                raise ValueError("`number` is a whole number")
            return said, await desk.experiment(number)
        except ValueError as error:
            return said, f"error: {error}"

    async def _ask(
        self, client: openai.AsyncOpenAI, items: list[Item], tools: list[str], began: float
    ) -> AsyncGenerator[AgentEvent | Reply, None]:
        """One reply, which comes last, whatever number of requests it takes. Raises: Trouble."""
        asking, deadline, attempt = self._asking, began + self._asking.turn, 0
        while True:
            try:
                async with aclosing(self._stream(client, items, tools, deadline)) as events:
                    async for event in events:
                        yield event
                self._settled, self._first_refusal = True, None
                return
            except Exception as error:
                # All of them: the SDK lets through what its parser, its transport and its URL checks raise.
                trouble = self._trouble(error)
            if trouble.at_once:
                yield Status(f"{trouble.reason}\n")
                continue
            attempt += 1
            wait = max(trouble.wait, min(asking.backoff * 2.0 ** (attempt - 1), asking.longest_wait))
            ends = asyncio.get_running_loop().time() + wait
            if not trouble.again or attempt >= asking.attempts or wait > asking.longest_wait or ends > deadline:
                recovery = min(trouble.wait or FOR_THE_SERVER, FOR_A_PERSON)
                raise Trouble(trouble.reason, again=False, wait=recovery, away=trouble.again)
            yield Status(f"{trouble.reason}; again in {wait:.0f} s ({attempt} of {asking.attempts})\n")
            await asyncio.sleep(wait)

    async def _stream(
        self, client: openai.AsyncOpenAI, items: list[Item], tools: list[str], deadline: float
    ) -> AsyncGenerator[AgentEvent | Reply, None]:
        """One request; its reply comes last. Only a reply that says it is finished is one: a cut stream just ends."""
        clock, asking, reply = asyncio.get_running_loop(), self._asking, Reply(self._key)
        until, draws = clock.time() + asking.first_word, clock.time()
        protocol = MODULES[self._protocol]

        async def within(step: Awaitable[T]) -> T:
            try:
                async with asyncio.timeout_at(min(until, deadline)):
                    return await step
            except TimeoutError:
                silence = asking.silence if reply.size else asking.first_word
                what = f"sent nothing for {silence:g} s" if until < deadline else "did not finish in the turn's time"
                raise Trouble(f"{self._host} {what}", again=True) from None

        stream = await within(
            protocol.open_stream(
                client, self._model, items, tools=tools, effort=asking.effort, without=frozenset(self._without)
            )
        )
        async with stream:
            try:
                while not reply.finish:
                    chunk = await within(anext(stream, None))
                    if chunk is None:
                        if "event-stream" in stream.response.headers.get("content-type", ""):
                            raise Trouble(f"the answer of {self._host} was cut off", again=True)
                        raise Trouble(f"{self._host} answers, but not as a model does; {SET_ENDPOINT}", again=False)
                    size = reply.size
                    for event in protocol.take(chunk, reply):
                        yield event
                    if reply.size > LONGEST_REPLY:
                        raise Trouble(f"{self._model} answered with more than {LONGEST_REPLY} characters", again=False)
                    if reply.calls and clock.time() >= draws:
                        draws = clock.time() + DRAFT_EVERY
                        if draft := reply.draft:
                            yield draft
                    if reply.size > size:
                        # Only words count: keep-alives and empty deltas would let a stalled server pass for ever.
                        until = clock.time() + asking.silence
                with contextlib.suppress(Exception):
                    # Chat Completions tell what it came to behind the end, where they do.
                    async with asyncio.timeout(FOR_THE_USAGE):
                        while reply.used is None and (chunk := await anext(stream, None)) is not None:
                            protocol.take(chunk, reply)
            except Trouble:
                if reply.used:
                    yield priced(reply.used, asking.prices)
                raise
        yield priced(reply.used or Used(), asking.prices)
        yield reply

    def _trouble(self, error: Exception) -> Trouble:
        """What an exception means for the turn, and what a person can do about it."""
        match error:
            case Trouble():
                if error.reason.startswith("gave up"):
                    error.reason = f"{self._host} {self._told(error.reason)}"
                return error
            case openai.APIStatusError(status_code=status):
                answer = f"{self._host} answered {status}: {self._said(error)}"
                if (other := self._other(status, answer)) is not None:
                    return other
                if status in (401, 403):
                    return Trouble(f"{answer}; {SET_KEY}", again=False, wait=FOR_A_PERSON)
                if status in (404, 405):
                    return Trouble(f"{answer}; {SET_ENDPOINT}", again=False, wait=FOR_A_PERSON)
                if status == 402 or error.code == "insufficient_quota":
                    advice = "the account is out of quota: add credit, or use another endpoint"
                    return Trouble(f"{answer}; {advice}", again=False, wait=FOR_A_PERSON)
                if status in (408, 409, 425, 429) or status >= 500:
                    return Trouble(answer, again=True, wait=_retry_after(error.response.headers))
                return Trouble(answer, again=False, wait=FOR_A_PERSON)
            case openai.APIConnectionError():
                why = error.__cause__ or error
                return Trouble(f"{self._host} cannot be reached: {self._told(str(why))}", again=True)
            case _:
                said = f"{type(error).__name__}: {self._said(error)}"
                return Trouble(f"{self._host} sent no answer that can be read: {said}", again=True)

    def _other(self, status: int, answer: str) -> Trouble | None:
        """Another way to ask a server that does not take this one; None where there is none left."""
        words = answer.lower()
        if status in (400, 404, 422):
            for option in OPTIONS:
                if option in words and option not in self._without:
                    self._without.add(option)
                    if option == "tool":
                        said = f"{self._model} takes no tools here, so it is asked for JSON"
                    else:
                        said = f"{self._host} takes no `{option}`, so it is asked without"
                    return Trouble(said, again=True, at_once=True)
        if status in (404, 405, 501) and not self._settled and "model" not in words:
            refused = Trouble(f"{answer}; {SET_ENDPOINT}", again=False, wait=FOR_A_PERSON)
            first, self._first_refusal = self._first_refusal, self._first_refusal or refused
            old: Protocol = self._protocol
            self._protocol = "chat" if old == "responses" else "responses"
            if first is not None:
                self._first_refusal = None
                return first
            said = f"{self._host} has not {TITLES[old]}, so it is asked by {TITLES[self._protocol]}"
            return Trouble(said, again=True, at_once=True)
        return None

    def _said(self, error: Exception) -> str:
        """The server's own words, where it gave any."""
        body = getattr(error, "body", None)
        message = body.get("message") if isinstance(body, dict) else None
        return self._told(str(message or error))

    def _told(self, text: str, limit: int = 300) -> str:
        return excerpt(text, [self._key], limit)


# Once: to read the certificates holds up the event loop for 50 ms.
_trusted = functools.cache(httpx2.create_ssl_context)


def _well_formed(calls: list[Call]) -> bool:
    return all(call.id and call.known is not None for call in calls)


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


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds the server asks for; 0.0 where it says nothing usable. A date is allowed by HTTP."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said) if not said.endswith("GMT") else parsedate_to_datetime(said).timestamp() - time.time()
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
