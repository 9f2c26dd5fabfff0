"""A stand-in for a model: a real HTTP server on loopback that streams as models do, scripted per test."""

import asyncio
import contextlib
import json

from protocols import call, chunk, frames, pieces

KEY = "sk-made-up-for-this-test-0123456789"


def proposing(proposal, count=7):
    """A call of the tool whose arguments come in fragments, as servers send them."""
    text = proposal if isinstance(proposal, str) else json.dumps(proposal)
    first = chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "propose"}}])
    return [first, *(call(piece) for piece in pieces(text, count)), chunk("tool_calls")]


def saying(text, finish="stop"):
    return [*(chunk(content=text[at : at + 5]) for at in range(0, len(text), 5)), chunk(finish)]


PLACES = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/messages": "messages",
    ":streamGenerateContent": "gemini",
}
"""How the path of a request ends, by protocol."""


class Exchange:
    """One request, and the means to answer it. Bodies are chunked, so that a cut one is seen to be cut."""

    def __init__(self, reader, writer, path, body):
        self.reader, self.writer, self.path, self.body = reader, writer, path, body

    @property
    def protocol(self):
        """The one that is asked by; "" for none."""
        place = self.path.partition("?")[0]
        return next((protocol for end, protocol in PLACES.items() if place.endswith(end)), "")

    @property
    def aside(self):
        """Whether a coding agent asks something beside its turn: a title, a summary, who is to speak next."""
        return self.protocol in ("messages", "gemini") and not self.body.get("tools")

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


def answer(**parts):
    """An answer in the protocol that is asked by; see `protocols`."""

    async def say(exchange):
        await exchange.start()
        for frame in frames(exchange.protocol, **parts):
            await exchange.raw(frame)
        await exchange.end()

    return say


class Model:
    """A server that answers each request with the next of `answers`, and the last of them from then on."""

    def __init__(self, *answers, speaks=None):
        self.answers, self.bodies, self.headers, self.left = list(answers), [], [], asyncio.Event()
        self.paths, self.speaks = [], PLACES.values() if speaks is None else speaks

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
            exchange.body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            self.paths.append(path)
            if exchange.protocol not in self.speaks:
                await refuse(404, "there is nothing here")(exchange)
                return
            if exchange.aside:
                await answer(say="A title.")(exchange)
                return
            self.headers.append(headers)
            self.bodies.append(exchange.body)
            await self.answers[min(len(self.bodies), len(self.answers)) - 1](exchange)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.left.set()
            writer.close()
