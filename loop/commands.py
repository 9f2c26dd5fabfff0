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
    """End the running experiment with its whole process tree, record why, and go on with the next one."""

    why: str


class Keep(Command, frozen=True):
    """Keep an experiment by hand, overruling the judge. Without `number`: the latest one that has a value."""

    why: str
    number: int | None = None


class Note(Command, frozen=True):
    """Tell the agent something; it stands in the next briefing."""

    text: str


class Stop(Command, frozen=True):
    """End the engine: after the running experiment, or `now`; the next engine then runs that experiment again."""

    now: bool = False


AnyCommand = Pause | Resume | Step | Reject | Keep | Note | Stop


class Reply(msgspec.Struct, frozen=True):
    """What became of a command, in one sentence. A refused one says why and what to do instead."""

    ok: bool
    text: str
