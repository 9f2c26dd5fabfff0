"""An answer of a model as the frames of a stream, in each protocol that models are asked by.

All take the same: what it thinks and says; `calls`, pairs of a tool and its arguments as JSON or object; why it
`finish`es; and `usage`, tokens in, cached among them, and out.
"""

import json
import zlib


class Freeform(str):
    """What a tool is given that takes no JSON."""


def frames(protocol, **answer):
    return {"chat": _chat, "responses": _responses, "messages": _messages, "gemini": _gemini}[protocol](**answer)


def chunk(finish=None, **delta):
    """One of Chat Completions."""
    return {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def call(arguments, index=0, **more):
    return chunk(tool_calls=[{"index": index, "function": {"arguments": arguments}, **more}])


def pieces(text, count=7):
    size = max(1, len(text) // count)
    return [text[at : at + size] for at in range(0, len(text), size)]


def _text(arguments):
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _named(events):
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]


def _chat(think="", say="", calls=(), finish="stop", usage=None):
    sent = [chunk(reasoning=piece) for piece in pieces(think)] + [chunk(content=piece) for piece in pieces(say)]
    for at, (name, arguments) in enumerate(calls):
        head = {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": ""}}
        sent += [chunk(tool_calls=[head]), *(call(piece, at) for piece in pieces(_text(arguments)))]
    sent.append(chunk("tool_calls" if calls and finish == "stop" else finish))
    if usage:
        told = {"prompt_tokens": usage[0], "completion_tokens": usage[2], "total_tokens": usage[0] + usage[2]}
        told["prompt_tokens_details"] = {"cached_tokens": usage[1]}
        sent.append({**chunk(), "choices": [], "usage": told})
    return [f"data: {json.dumps(event)}\n\n" for event in sent] + ["data: [DONE]\n\n"]


def _responses(think="", say="", calls=(), finish="stop", usage=None):
    response = {"id": "r", "object": "response", "created_at": 1, "model": "fake", "output": [], "tools": []}
    response |= {"parallel_tool_calls": True, "tool_choice": "auto", "status": "in_progress"}
    sent, at = [{"type": "response.created", "response": response}], 0
    if think:
        item = {"type": "reasoning", "id": "rs", "summary": []}
        sent.append({"type": "response.output_item.added", "output_index": at, "item": item})
        part = {"item_id": "rs", "output_index": at, "summary_index": 0}
        sent += [{"type": "response.reasoning_summary_text.delta", "delta": piece, **part} for piece in pieces(think)]
        whole = {**item, "summary": [{"type": "summary_text", "text": think}], "encrypted_content": "sealed"}
        sent.append({"type": "response.output_item.done", "output_index": at, "item": whole})
        at += 1
    if say:
        part = {"item_id": "m", "output_index": at, "content_index": 0, "logprobs": []}
        item = {"type": "message", "id": "m", "role": "assistant", "status": "completed"}
        sent.append({"type": "response.output_item.added", "output_index": at, "item": {**item, "content": []}})
        sent += [{"type": "response.output_text.delta", "delta": piece, **part} for piece in pieces(say)]
        whole = {**item, "content": [{"type": "output_text", "text": say, "annotations": []}]}
        sent.append({"type": "response.output_item.done", "output_index": at, "item": whole})
        at += 1
    for name, arguments in calls:
        kind, holds = (
            ("custom_tool_call", "input") if isinstance(arguments, Freeform) else ("function_call", "arguments")
        )
        item = {"type": kind, "id": f"f{at}", "call_id": f"call_{at}", "name": name, holds: ""}
        sent.append({"type": "response.output_item.added", "output_index": at, "item": item})
        if kind == "function_call":
            part = {"type": "response.function_call_arguments.delta", "item_id": f"f{at}", "output_index": at}
            sent += [{**part, "delta": piece} for piece in pieces(_text(arguments))]
        whole = {**item, holds: _text(arguments), "status": "completed"}
        sent.append({"type": "response.output_item.done", "output_index": at, "item": whole})
        at += 1
    ended = {**response, "status": "completed" if finish == "stop" else "incomplete"}
    if finish != "stop":
        ended["incomplete_details"] = {"reason": "max_output_tokens" if finish == "length" else finish}
    if usage:
        ended["usage"] = {"input_tokens": usage[0], "output_tokens": usage[2], "total_tokens": usage[0] + usage[2]}
        ended["usage"] |= {"input_tokens_details": {"cached_tokens": usage[1], "cache_write_tokens": 0}}
        ended["usage"] |= {"output_tokens_details": {"reasoning_tokens": 0}}
    sent.append({"type": "response.completed" if finish == "stop" else "response.incomplete", "response": ended})
    return _named({**event, "sequence_number": number} for number, event in enumerate(sent))


def _messages(think="", say="", calls=(), finish="stop", usage=(0, 0, 0)):
    """Anthropic's."""
    told = {"input_tokens": usage[0] - usage[1], "cache_read_input_tokens": usage[1], "output_tokens": 1}
    message = {"id": "msg", "type": "message", "role": "assistant", "model": "fake", "content": [], "usage": told}
    blocks = []
    if think:
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(think)]
        blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, thoughts))
    if say:
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(say)]))
    for at, (name, arguments) in enumerate(calls):
        growing = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces(_text(arguments))]
        # Its client wants no two calls of one conversation to have one name.
        blocks.append(
            (
                {"type": "tool_use", "id": f"toolu_{zlib.crc32(repr(calls).encode())}_{at}", "name": name, "input": {}},
                growing,
            )
        )
    sent = [{"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None}}]
    for at, (block, deltas) in enumerate(blocks):
        sent.append({"type": "content_block_start", "index": at, "content_block": block})
        sent += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        sent.append({"type": "content_block_stop", "index": at})
    stop = "tool_use" if calls else "end_turn" if finish == "stop" else finish
    ended = {"stop_reason": stop, "stop_sequence": None}
    sent.append({"type": "message_delta", "delta": ended, "usage": {"output_tokens": usage[2]}})
    return _named([*sent, {"type": "message_stop"}])


def _gemini(think="", say="", calls=(), finish="stop", usage=(0, 0, 0)):
    """Google's generateContent."""
    # Its client takes each piece of a thought for one that is whole.
    parts = [{"text": think, "thought": True}] * bool(think) + [{"text": piece} for piece in pieces(say)]
    parts += [{"functionCall": {"name": name, "args": json.loads(_text(arguments))}} for name, arguments in calls]
    told = {"promptTokenCount": usage[0], "cachedContentTokenCount": usage[1], "candidatesTokenCount": usage[2]}
    told["totalTokenCount"] = usage[0] + usage[2]
    said = [{"content": {"role": "model", "parts": [part]}, "index": 0} for part in parts]
    said[-1]["finishReason"] = "STOP" if finish == "stop" else finish.upper()
    whole = {"modelVersion": "fake", "responseId": "r", "usageMetadata": told}
    return [f"data: {json.dumps({'candidates': [candidate], **whole})}\n\n" for candidate in said]
