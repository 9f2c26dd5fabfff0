"""A stand-in for a model: a real HTTP server on loopback that speaks both protocols as streams, scripted per test."""

import asyncio
import contextlib
import json

KEY = "sk-made-up-for-this-test-0123456789"


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


def proposing(proposal, count=7):
    """A call of the tool whose arguments come in fragments, as servers send them."""
    text = proposal if isinstance(proposal, str) else json.dumps(proposal)
    first = chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "propose"}}])
    return [first, *(call(piece) for piece in pieces(text, count)), chunk("tool_calls")]


def saying(text, finish="stop"):
    return [*(chunk(content=text[at : at + 5]) for at in range(0, len(text), 5)), chunk(finish)]


class Exchange:
    """One request, and the means to answer it. Bodies are chunked, so that a cut one is seen to be cut."""

    def __init__(self, reader, writer, path, body):
        self.reader, self.writer, self.path, self.body = reader, writer, path, body

    @property
    def protocol(self):
        return "responses" if self.path.endswith("/responses") else "chat"

    async def start(self, status=200, content_type="text/event-stream", **headers):
        lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {content_type}", "Transfer-Encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        await self.writer.drain()

    async def raw(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await self.writer.drain()

    async def send(self, *chunks):
        for piece in chunks:
            await self.raw(f"data: {json.dumps(piece)}\n\n")

    async def end(self):
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def left(self):
        """Returns once the client is gone."""
        with contextlib.suppress(OSError):
            while await self.reader.read(1024):
                pass


def stream(*chunks):
    async def answer(exchange):
        await exchange.start()
        await exchange.send(*chunks)
        await exchange.raw("data: [DONE]\n\n")
        await exchange.end()

    return answer


def refuse(status, message="no", code=None, **headers):
    async def answer(exchange):
        await exchange.start(status, "application/json", **headers)
        await exchange.raw(json.dumps({"error": {"message": message, "code": code}}))
        await exchange.end()

    return answer


def frames(protocol, think="", say="", calls=(), finish="stop", usage=None):
    """An answer as the server-sent events of either protocol. `calls`: pairs of a tool and its arguments as JSON or
    object; `usage`: tokens in, cached, and out."""
    texts = [(name, text if isinstance(text, str) else json.dumps(text)) for name, text in calls]
    if protocol == "chat":
        sent = [chunk(reasoning=piece) for piece in pieces(think)] + [chunk(content=piece) for piece in pieces(say)]
        for at, (name, text) in enumerate(texts):
            head = {"index": at, "id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": ""}}
            sent += [chunk(tool_calls=[head]), *(call(piece, at) for piece in pieces(text))]
        sent.append(chunk("tool_calls" if texts and finish == "stop" else finish))
        if usage:
            told = {"prompt_tokens": usage[0], "completion_tokens": usage[2], "total_tokens": usage[0] + usage[2]}
            told["prompt_tokens_details"] = {"cached_tokens": usage[1]}
            sent.append({**chunk(), "choices": [], "usage": told})
        return [f"data: {json.dumps(event)}\n\n" for event in sent] + ["data: [DONE]\n\n"]
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
    for name, text in texts:
        item = {"type": "function_call", "id": f"f{at}", "call_id": f"call_{at}", "name": name, "arguments": ""}
        sent.append({"type": "response.output_item.added", "output_index": at, "item": item})
        part = {"item_id": f"f{at}", "output_index": at}
        sent += [{"type": "response.function_call_arguments.delta", "delta": piece, **part} for piece in pieces(text)]
        whole = {**item, "arguments": text, "status": "completed"}
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
    told = ({**event, "sequence_number": number} for number, event in enumerate(sent))
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in told]


def answer(**parts):
    """An answer in the protocol that is asked by; see `frames`."""

    async def say(exchange):
        await exchange.start()
        for frame in frames(exchange.protocol, **parts):
            await exchange.raw(frame)
        await exchange.end()

    return say


class Model:
    """A server that answers each request with the next of `answers`, and the last of them from then on."""

    def __init__(self, *answers, speaks=("chat", "responses")):
        self.answers, self.bodies, self.headers, self.left = list(answers), [], [], asyncio.Event()
        self.paths, self.speaks = [], speaks

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split()[1]
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            exchange = Exchange(reader, writer, path, None)
            exchange.body = json.loads(await reader.readexactly(int(headers["content-length"])))
            self.paths.append(path)
            if exchange.protocol not in self.speaks:
                await refuse(404, "there is nothing here")(exchange)
                return
            self.headers.append(headers)
            self.bodies.append(exchange.body)
            await self.answers[min(len(self.bodies), len(self.answers)) - 1](exchange)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.left.set()
            writer.close()
