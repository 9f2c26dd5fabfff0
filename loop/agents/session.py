"""A session with a coding agent: its process, and labtop's side of the Agent Client Protocol.

What the agent asks is answered by policy: it may write the editable files and read its folder; all else is put to the
person, where there is one to ask, and refused otherwise. Its process, and all that it started, ends with the session by
our hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import uuid
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import acp
import msgspec
from acp import schema
from msgspec.structs import replace

from loop.agents import AgentEvent, Desk, Draft, Text, Thought, ToolUse, Used
from loop.agents.reply import Masking, excerpt, priced
from loop.agents.worktree import Worktree
from loop.config import Asking
from loop.patch import Edit, unified_diff
from loop.trials.runner import marked, send

LONGEST_LINE = 64 << 20
"""Bytes of one message: an agent that writes a file sends it whole."""

LONGEST_SPEECH = 1 << 20
"""Characters that an agent may think and say in a turn."""

PATIENCE = 2.0
"""Seconds that an agent has to end by itself once it is told to."""

FOR_A_PERSON, FOR_THE_SERVER = 900.0, 60.0
"""Seconds until asking again may help."""

DIFF_LINES = 60

NOT_LOGGED_IN = -32000
"""The protocol's code for what wants the person to log in first."""

T = TypeVar("T")


class Lost(Exception):
    """The session cannot go on."""

    def __init__(self, reason: str, *, wait: float = 0.0, away: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.wait, self.away = reason, wait, away


@contextlib.asynccontextmanager
async def opened(
    command: Sequence[str],
    worktree: Worktree,
    editable: Collection[str],
    tell: Callable[[AgentEvent], None],
    *,
    environment: Mapping[str, str],
    asking: Asking,
    secrets: Sequence[str],
    person: Person | None = None,
) -> AsyncGenerator[Session, None]:
    """A session with the process of `command`, in the worktree's folder; both end with it. Raises: Lost."""
    cookie = f"agent-{uuid.uuid4().hex}"
    inherited = {name: value for name, value in environment.items() if not name.startswith("LABTOP_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            cwd=worktree.folder,
            env={**inherited, "LABTOP_TRIAL": cookie},
            start_new_session=True,
            limit=LONGEST_LINE,
        )
    except OSError as error:
        raise Lost(f"{command[0]} cannot be started: {error.strerror}", wait=FOR_A_PERSON) from None
    session = Session(command[0], process, worktree, editable, tell, asking, person=person, secrets=secrets)
    try:
        await session.open()
        yield session
    finally:
        # Shielded: a person who ends the turn must not leave the agent behind.
        await asyncio.shield(session.close(cookie))


class Person:
    """Who is asked what the policy does not allow. Meanwhile the turn's clock stands still."""

    def __init__(self, desk: Desk, clock: asyncio.Timeout) -> None:
        self.asked = 0
        """Questions that wait."""
        self._desk, self._clock = desk, clock
        self._one = asyncio.Lock()

    async def permits(self, what: str) -> bool:
        loop = asyncio.get_running_loop()
        self.asked += 1
        try:
            async with self._one:
                began, ends = loop.time(), self._clock.when()
                self._clock.reschedule(None)
                allowed = await self._desk.permit(what)
                if ends is not None:
                    self._clock.reschedule(ends + loop.time() - began)
                return allowed
        finally:
            self.asked -= 1


class Session:
    """One agent's process and its session: the client's side of the protocol."""

    def __init__(
        self,
        title: str,
        process: Process,
        worktree: Worktree,
        editable: Collection[str],
        tell: Callable[[AgentEvent], None],
        asking: Asking,
        *,
        person: Person | None,
        secrets: Sequence[str],
    ) -> None:
        self.title = title
        self.speech = ""
        """What it said since it was asked last."""
        self._process = process
        self._worktree = worktree
        self._editable = editable
        self._tell = tell
        self._asking = asking
        self._person = person
        self._secrets = secrets
        self._masking = {kind: Masking(*secrets) for kind in (Thought, Text)}
        self._errors: deque[str] = deque(maxlen=20)
        self._reader = asyncio.create_task(self._read_errors())
        self._exit = asyncio.create_task(_exit(process))
        self._heard = asyncio.Event()
        self._session = ""
        self._calls: dict[str, Call] = {}
        self._said = 0
        self._cost, self._cost_told = 0.0, False
        self._window = 0
        assert process.stdin is not None and process.stdout is not None
        client: Any = self
        self._agent = acp.connect_to_agent(client, process.stdin, process.stdout)

    async def open(self) -> None:
        """Greet the agent and open a session. Raises: Lost."""
        able = schema.FileSystemCapabilities(read_text_file=True, write_text_file=True)
        greeting = await self._answer(
            self._agent.initialize(
                protocol_version=acp.PROTOCOL_VERSION,
                client_capabilities=schema.ClientCapabilities(fs=able, terminal=False),
                client_info=schema.Implementation(name="labtop", version="1"),
            )
        )
        if greeting.agent_info:
            self.title = f"{greeting.agent_info.name} {greeting.agent_info.version}"
        opened = await self._answer(self._agent.new_session(cwd=str(self._worktree.folder), mcp_servers=[]))
        self._session = opened.session_id

    async def ask(self, words: str) -> str:
        """One prompt and all that comes of it; why the agent stopped. Raises: Lost."""
        self.speech = ""
        before = self._cost
        answer = await self._answer(self._agent.prompt(session_id=self._session, prompt=[acp.text_block(words)]))
        self._pause()
        cost = self._cost - before if self._cost_told else None
        self._tell(priced(replace(_used(answer), cost=cost), self._asking.prices))
        return str(answer.stop_reason)

    async def _answer(self, call: Awaitable[T]) -> T:
        """What the agent answers, as long as it lives and is heard of. Raises: Lost."""
        task = asyncio.ensure_future(call)
        try:
            while not task.done():
                self._heard.clear()
                heard = asyncio.ensure_future(self._heard.wait())
                waiting = {task, heard, self._exit}
                done, _ = await asyncio.wait(
                    waiting, timeout=self._asking.first_word, return_when=asyncio.FIRST_COMPLETED
                )
                heard.cancel()
                if not done and not (self._person and self._person.asked):
                    raise Lost(f"{self.title} sent nothing for {self._asking.first_word:g} s", wait=FOR_THE_SERVER)
                if self._exit in done and not task.done():
                    raise await self._ended()
                if self._said > LONGEST_SPEECH:
                    raise Lost(f"{self.title} said more than {LONGEST_SPEECH} characters")
                if self._window > self._asking.turn_tokens:
                    raise Lost(f"{self.title} used more than {self._asking.turn_tokens} tokens")
            return task.result()
        except acp.RequestError as error:
            detail = excerpt(f"{error} {error.data or ''}", self._secrets)
            if error.code == NOT_LOGGED_IN:
                advice = "log in with it once, in a terminal of yours, or set its key, and start the engine again"
                raise Lost(f"{self.title} is not logged in ({detail}); {advice}", wait=FOR_A_PERSON) from None
            said = f" ({excerpt(self._errors[-1], self._secrets)})" if self._errors else ""
            raise Lost(f"{self.title} answered: {detail}{said}", wait=FOR_THE_SERVER, away=True) from None
        except (ConnectionError, EOFError):
            raise await self._ended() from None
        finally:
            task.cancel()

    async def _ended(self) -> Lost:
        """What to say of an agent that is gone."""
        await asyncio.wait({self._reader, self._exit}, timeout=PATIENCE)
        how = f"ended with status {self._exit.result()}" if self._exit.done() else "hung up"
        said = f": {excerpt(self._errors[-1], self._secrets)}" if self._errors else ""
        return Lost(f"{self.title} {how}{said}")

    async def close(self, cookie: str) -> None:
        """End the agent and everything that it started."""
        process = self._process
        with contextlib.suppress(Exception):
            if self._session and process.returncode is None:
                await asyncio.wait_for(self._agent.cancel(session_id=self._session), PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._exit), PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        while Path("/proc/self").exists() and (left := await asyncio.to_thread(marked, cookie)):
            send(left, signal.SIGKILL)
            await asyncio.sleep(0.01)
        await self._exit
        with contextlib.suppress(Exception):
            await self._agent.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65536):
            lines = chunk.decode("utf-8", "replace").splitlines()
            self._errors += [line for line in lines[-20:] if line.strip()]

    def on_connect(self, conn: Any) -> None:
        """Of the protocol's interface; nothing is wanted of the agent yet."""

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        """What the agent thinks, says and does. The kinds of updates are open-ended: others are passed over."""
        self._heard.set()
        match update:
            case schema.AgentThoughtChunk(content=schema.TextContentBlock(text=text)):
                self._word(Thought, text)
            case schema.AgentMessageChunk(content=schema.TextContentBlock(text=text)):
                self.speech += text
                self._word(Text, text)
            case schema.ToolCallStart() | schema.ToolCallProgress():
                call = self._calls.setdefault(update.tool_call_id, Call(self._secrets))
                for line in call.more(update, self._worktree.folder):
                    self._did(line)
                if call.edits:
                    self._tell(Draft(edits=tuple(edit for call in self._calls.values() for edit in call.edits)))
            case schema.AgentPlanUpdate(entries=entries):
                marks = {"completed": "x", "in_progress": "…"}
                steps = [
                    f"  [{marks.get(entry.status, ' ')}] {excerpt(entry.content, self._secrets, 200)}\n"
                    for entry in entries
                ]
                self._did(f"plan:\n{''.join(steps)}")
            case schema.UsageUpdate():
                self._window = max(self._window, update.used or 0)
                if update.cost is not None:
                    self._cost, self._cost_told = max(self._cost, update.cost.amount), True

    def _word(self, kind: type[Thought | Text], text: str) -> None:
        """Tell a piece of what it thinks or says, as far as it is sure to hold no key."""
        self._said += len(text)
        self._pause(kind)
        if ready := self._masking[kind].feed(text):
            self._tell(kind(ready))

    def _did(self, line: str) -> None:
        self._pause()
        self._tell(ToolUse(line))

    def _pause(self, going_on: type[Thought | Text] | None = None) -> None:
        """Tell what was held back of words that something else comes behind."""
        for kind, masking in self._masking.items():
            if kind is not going_on and (ready := masking.feed("", final=True)):
                self._tell(kind(ready))

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Sequence[schema.PermissionOption], **_: Any
    ) -> schema.RequestPermissionResponse:
        """Answer by policy, and where that does not say yes, as the person does."""
        self._heard.set()
        call = self._calls.setdefault(tool_call.tool_call_id, Call(self._secrets))
        for line in call.more(tool_call, self._worktree.folder):
            self._did(line)
        allowed, title = self._allows(call), excerpt(call.title or call.kind, self._secrets, 200)
        # What is written outside the editable files is put back, whatever a person would say.
        if not allowed and self._person and call.kind not in ("edit", "delete", "move"):
            allowed = await self._person.permits(f"{call.kind or 'other'}: {title}")
            self._heard.set()
        self._did(f"{title}: {'allowed' if allowed else 'refused'}\n")
        wanted = ("allow_once", "allow_always") if allowed else ("reject_once", "reject_always")
        for kind in wanted:
            for option in options:
                if option.kind == kind:
                    return schema.RequestPermissionResponse(
                        outcome=schema.AllowedOutcome(outcome="selected", option_id=option.option_id)
                    )
        return schema.RequestPermissionResponse(outcome=schema.DeniedOutcome(outcome="cancelled"))

    def _allows(self, call: Call) -> bool:
        places = [self._worktree.inside(path) for path in call.paths]
        match call.kind:
            case "edit":
                return bool(places) and all(place in self._editable for place in places)
            case "read" | "search" | "think":
                return all(place is not None for place in places)
        return False

    async def read_text_file(
        self, session_id: str, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> schema.ReadTextFileResponse:
        self._heard.set()
        inner = self._worktree.inside(path)
        file = self._worktree.folder / (inner or "")
        if inner is None or not file.is_file():
            raise acp.RequestError.resource_not_found(path)
        text = await asyncio.to_thread(file.read_text, encoding="utf-8", errors="replace")
        if line is not None or limit is not None:
            start = max(0, (line or 1) - 1)
            text = "".join(text.splitlines(keepends=True)[start : None if limit is None else start + limit])
        return schema.ReadTextFileResponse(content=text)

    async def write_text_file(
        self, session_id: str, path: str, content: str, **_: Any
    ) -> schema.WriteTextFileResponse | None:
        self._heard.set()
        inner = self._worktree.inside(path)
        if inner is None or inner not in self._editable:
            self._did(f"write {excerpt(path, self._secrets, 200)}: refused\n")
            raise acp.RequestError.invalid_params({"reason": f"only {', '.join(self._editable)} may be changed"})
        self._did(f"write {inner}\n")
        await asyncio.to_thread((self._worktree.folder / inner).write_text, content, encoding="utf-8")
        return schema.WriteTextFileResponse()

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise acp.RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Extensions are nobody's here."""


async def _exit(process: Process) -> int:
    """Its status, once it has ended; asyncio's own wait would be for its children too, which hold its pipes."""
    while process.returncode is None:
        await asyncio.sleep(0.02)
    return process.returncode


class Call:
    """A call of one of the agent's own tools, as far as it is known."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self.title, self.kind = "", ""
        self.paths: list[str] = []
        self.edits: list[Edit] = []
        self._secrets = secrets
        self._shown: set[str] = set()

    def more(self, update: Any, folder: Path) -> list[str]:
        """What an update adds, in lines to show: its title, and the diff of each file that it changes."""
        self.kind = update.kind or self.kind
        lines = []
        if update.title and update.title != self.title:
            self.title = update.title
            lines.append(f"{excerpt(self.title, self._secrets, 200)}\n")
        found = [location.path for location in update.locations or ()]
        for content in update.content or ():
            if isinstance(content, schema.FileEditToolCallContent):
                found.append(content.path)
                name = content.path.removeprefix(f"{folder}/")
                old, new = (
                    text + "\n" * (not text.endswith("\n")) for text in (content.old_text or "", content.new_text)
                )
                diff = unified_diff({name: old}, {name: new})
                if diff not in self._shown:
                    self._shown.add(diff)
                    self.edits.append(Edit(name, content.old_text or "", content.new_text))
                    lines.append("".join(diff.splitlines(keepends=True)[:DIFF_LINES]))
        self.paths += [path for path in found if path not in self.paths]
        return [line for line in lines if line]


class _Count(msgspec.Struct):
    input_tokens: int
    output_tokens: int


class _Quota(msgspec.Struct):
    token_count: _Count


class _Meta(msgspec.Struct):
    """Where Gemini tells its use, which the protocol's own field came after."""

    quota: _Quota


def _used(answer: schema.PromptResponse) -> Used:
    """What a prompt came to; nothing, where the agent does not tell."""
    if usage := answer.usage:
        # Some agents count cached tokens among the input and some do not; the total tells.
        spent = max(usage.input_tokens, usage.total_tokens - usage.output_tokens)
        return Used(input=spent, cached=usage.cached_read_tokens or 0, output=usage.output_tokens)
    try:
        count = msgspec.convert(answer.field_meta, _Meta).quota.token_count
    except msgspec.ValidationError:
        return Used()
    return Used(input=count.input_tokens, output=count.output_tokens)
