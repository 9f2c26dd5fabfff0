"""Chat Completions as a stream: vLLM, Ollama, llama.cpp, LM Studio, DeepSeek, OpenRouter, and OpenAI's older models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import openai
from openai.types.chat import ChatCompletionChunk

from loop.agents import AgentEvent
from loop.agents.prompt import SYSTEM, functions
from loop.agents.reply import Item, Reply, Shown, Told, text, used

REASONING = ("reasoning", "reasoning_content")
"""vLLM, Ollama and OpenRouter say the first, DeepSeek and older vLLM the second; some send both, one of them empty."""


async def open_stream(
    client: openai.AsyncOpenAI,
    model: str,
    items: Sequence[Item],
    *,
    tools: Sequence[str],
    effort: str,
    without: Collection[str],
) -> openai.AsyncStream[ChatCompletionChunk]:
    """Ask. `without` names what this server does not take."""
    named: Any = [{"type": "function", "function": function} for function in functions(tools)]
    effort_wanted: Any = effort
    return await client.chat.completions.create(
        model=model,
        messages=[{"role": "system", "content": SYSTEM}, *(_message(item) for item in items)],
        stream=True,
        tools=openai.omit if "tool" in without else named,
        stream_options=openai.omit if "stream_options" in without else {"include_usage": True},
        reasoning_effort=effort_wanted if effort and "reasoning" not in without else openai.omit,
    )


def _message(item: Item) -> Any:
    match item:
        case Told(text):
            return {"role": "user", "content": text}
        case Shown(call, text):
            return {"role": "tool", "tool_call_id": call, "content": text}
        case Reply(plain=True):
            return {"role": "assistant", "content": item.transcript}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments or "{}"},
            **call.extra,
        }
        for call in item.calls.values()
    ]
    details = {"reasoning_details": item.carried} if item.carried else {}
    return {"role": "assistant", "content": item.said or None, "tool_calls": calls, **item.thoughts, **details}


def take(chunk: ChatCompletionChunk, reply: Reply) -> list[AgentEvent]:
    """The next chunk. Servers differ, so nothing of it is relied on but its shape."""
    events: list[AgentEvent] = []
    for choice in chunk.choices or ():
        if delta := choice.delta:
            extra = delta.model_extra or {}
            name = next((name for name in REASONING if text(extra.get(name))), "")
            if name:
                thought = text(extra[name])
                reply.thoughts[name] = reply.thoughts.get(name, "") + thought
                events += reply.think(thought)
            if isinstance(details := extra.get("reasoning_details"), list):
                reply.carried += details
            if refusal := text(getattr(delta, "refusal", None)):
                reply.refused = True
                events += reply.say(refusal)
            events += reply.say(text(delta.content))
            for call in delta.tool_calls or ():
                function = call.function
                events += reply.call(
                    call.index,
                    id=text(call.id),
                    name=text(function.name) if function else "",
                    arguments=text(function.arguments) if function else "",
                )
                if call.model_extra:
                    reply.calls[call.index].extra.update(call.model_extra)
        if finish := text(choice.finish_reason):
            reply.refused = reply.refused or finish == "content_filter"
            events += reply.end(finish)
    if usage := chunk.usage:
        cost = (usage.model_extra or {}).get("cost")
        reply.used = used(
            usage.prompt_tokens,
            usage.prompt_tokens_details,
            usage.completion_tokens,
            cost=float(cost) if isinstance(cost, int | float) else None,
        )
    return events
