"""The Responses API as a stream: OpenAI, and what speaks as it does. Of its reasoning it shows summaries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import openai
from openai.types.responses import ResponseStreamEvent

from loop.agents import AgentEvent, Used
from loop.agents.prompt import SYSTEM, functions
from loop.agents.reply import Item, Reply, Shown, Told, Trouble, text, used

TEMPORARY = ("server_error", "rate_limit_exceeded", "overloaded", "timeout")
"""Codes of failures that asking again may mend."""


async def open_stream(
    client: openai.AsyncOpenAI,
    model: str,
    items: Sequence[Item],
    *,
    tools: Sequence[str],
    effort: str,
    without: Collection[str],
) -> openai.AsyncStream[ResponseStreamEvent]:
    """Ask. `without` names what this server does not take."""
    named: Any = [{"type": "function", "strict": False, **function} for function in functions(tools)]
    thinking: Any = {"summary": "auto", **({"effort": effort} if effort else {})}
    asked: Any = [part for item in items for part in _parts(item)]
    reasons = "reasoning" not in without
    stream: openai.AsyncStream[ResponseStreamEvent] = await client.responses.create(
        model=model,
        instructions=SYSTEM,
        input=asked,
        stream=True,
        store=False,  # What a study is about stays with the person.
        tools=openai.omit if "tool" in without else named,
        reasoning=thinking if reasons else openai.omit,
        include=["reasoning.encrypted_content"] if reasons else openai.omit,
    )
    return stream


def _parts(item: Item) -> list[Any]:
    match item:
        case Told(said):
            return [{"role": "user", "content": said}]
        case Shown(call, said):
            return [{"type": "function_call_output", "call_id": call, "output": said}]
        case Reply(plain=True):
            return [{"role": "assistant", "content": item.transcript}]
    spoken = [{"role": "assistant", "content": item.said}] if item.said else []
    calls = [
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
        for call in item.calls.values()
    ]
    return [*item.carried, *spoken, *calls]


def take(event: ResponseStreamEvent, reply: Reply) -> list[AgentEvent]:
    """The next event. Raises: Trouble where the server gives up."""
    match event.type:
        case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
            return reply.think(text(event.delta))
        case "response.reasoning_summary_part.added":
            return reply.think("\n\n") if reply.size else []
        case "response.output_text.delta":
            return reply.say(text(event.delta))
        case "response.refusal.delta":
            reply.refused = True
            return reply.say(text(event.delta))
        case "response.output_item.added" if event.item.type == "function_call":
            return reply.call(event.output_index, id=text(event.item.call_id), name=text(event.item.name))
        case "response.function_call_arguments.delta":
            return reply.call(event.output_index, arguments=text(event.delta))
        case "response.output_item.done" if event.item.type == "function_call":
            return _whole_call(event.output_index, event.item, reply)
        case "response.output_item.done" if event.item.type == "reasoning" and event.item.encrypted_content:
            reply.carried.append(event.item.model_dump(mode="json", exclude_none=True, exclude={"status"}))
        case "response.completed":
            reply.used = _used(event.response.usage)
            return reply.end("stop")
        case "response.incomplete":
            reply.used = _used(event.response.usage)
            details = event.response.incomplete_details
            why = text(details.reason) if details else ""
            reply.refused = reply.refused or why == "content_filter"
            return reply.end("length" if why == "max_output_tokens" else why or "incomplete")
        case "response.failed":
            reply.used = _used(event.response.usage)
            failure = event.response.error
            raise _given_up(text(failure.message) if failure else "", text(failure.code) if failure else "")
        case "error":
            raise _given_up(text(event.message), text(event.code))
    return []


def _whole_call(at: int, item: Any, reply: Reply) -> list[AgentEvent]:
    """Some servers send the arguments only once, whole."""
    known = reply.calls.get(at)
    missing = "" if known and known.arguments else text(item.arguments)
    return reply.call(at, id=text(item.call_id), name=text(item.name), arguments=missing)


def _given_up(message: str, code: str) -> Trouble:
    again = not code or code in TEMPORARY
    return Trouble(f"gave up: {message or code or 'it does not say why'}", again=again)


def _used(usage: Any) -> Used | None:
    return used(usage.input_tokens, usage.input_tokens_details, usage.output_tokens) if usage else None
