"""Every command a person can give, and the answer to it."""

from __future__ import annotations

import msgspec


class Command(msgspec.Struct, frozen=True, tag_field="do", kw_only=True, omit_defaults=True):
    """Base of what a person asks of the engine, through its one inbox."""


class Pause(Command, frozen=True):
    """Wait at the next gate; a training that runs is paused at its next step and its budget clock stops."""


class Resume(Command, frozen=True):
    """Go on."""


class Step(Command, frozen=True):
    """Pass one gate: propose, then wait; run, then wait; judge, then wait."""


class Reject(Command, frozen=True):
    """End the running experiment with its whole process tree, record why, and go on with the next one. `number` guards
    against ending another one than was looked at."""

    why: str
    number: int | None = None


class Keep(Command, frozen=True):
    """Keep an experiment by hand, overruling the judge. Without `number`: the latest one that has a value."""

    why: str
    number: int | None = None


class Undo(Command, frozen=True):
    """Take the latest verdict back: what was kept leaves the branch, what was not is run again. `number` guards against
    undoing another one than was looked at."""

    why: str
    number: int | None = None


class Gate(Command, frozen=True):
    """Approve mode: while it is on no proposal trains before a person approves it."""

    on: bool


class Approve(Command, frozen=True):
    """Let the proposal that waits train. `number` guards against approving another one than was looked at."""

    number: int | None = None


class Permit(Command, frozen=True):
    """Let a coding agent do what it asks for, once, or not. `what` guards against answering another question."""

    allow: bool
    what: str = ""


class Amend(Command, frozen=True):
    """Put `diff`, a unified diff against the incumbent, in the place of the patch that waits for approval."""

    diff: str
    number: int | None = None


class Break(Command, frozen=True):
    """Pause the study when the condition holds; see `loop.breakpoints` for what can be said."""

    condition: str


class Unbreak(Command, frozen=True):
    """Forget a breakpoint, or, where `condition` is empty, all of them."""

    condition: str = ""


class Note(Command, frozen=True):
    """Tell the agent something; it stands in the next briefing, and beside experiment `number` where one is given."""

    text: str
    number: int | None = None


class Stop(Command, frozen=True):
    """End the engine: after the running experiment, or `now`; the next engine then runs that experiment again."""

    now: bool = False


AnyCommand = (
    Pause | Resume | Step | Reject | Keep | Undo | Gate | Approve | Permit | Amend | Break | Unbreak | Note | Stop
)


class Reply(msgspec.Struct, frozen=True):
    """What became of a command, in one sentence. A refused one says why and what to do instead."""

    ok: bool
    text: str
