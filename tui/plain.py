"""The study as lines of text: for pipes, logs, screen readers and `labtop status`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec.structs import asdict

from loop import events as ev
from loop.commands import Stop
from loop.events import AgentDelta, Record, Step
from loop.remote.client import Client
from loop.remote.wire import Recorded, Snapshot
from loop.state import BASELINE, Experiment, StudyState
from tui import words

PROGRESS_EVERY = 60.0
"""Seconds of silence after which a training tells how far it is."""

LOG_TAIL = 15
"""So many of the last lines of a log say why a run failed."""


async def watch(socket: Path, *, guest: bool, out: TextIO | None = None) -> int:
    """Print one line per event until the engine ends, then a summary, and return the exit status.

    The status is 0 where the engine ended by itself or was stopped by a person, 1 where it vanished, or where it waits
    for a person who is not here: then it is stopped, so that nothing hangs, but by no `guest`, who came to an engine
    that somebody else has started. Raises: EngineGone.
    """
    out = out or sys.stdout
    client = await Client.connect(socket)
    told, failed = time.monotonic(), False
    try:
        async for update in client.updates():
            said = None
            match update:
                case Snapshot(state=state):
                    said = opening(state) if state.mode != "stopped" else None
                case Recorded(record=record):
                    said = line(record, client.state)
                    match record.event:
                        case ev.Paused(by="engine"):
                            failed = not guest
                            said = f"{said}\n{await _last_words(client)}"
                            if not guest:
                                await client.do(Stop(now=True))
                case AgentDelta(kind="status") if update.text.strip():
                    said = f"{words.clock(time.time())} {words.name(update.number)} {words.one_line(update.text)}"
                case Step() if time.monotonic() - told > PROGRESS_EVERY:
                    said = _progress(update)
            if said:
                print(said, file=out, flush=True)
                told = time.monotonic()
            if isinstance(update, Recorded) and isinstance(update.record.event, ev.EngineStopped):
                break
    finally:
        await client.close()
    if client.state.mode != "stopped":
        print("the engine is gone without a word; `labtop run` goes on where it was", file=out)
        return 1
    print(f"\n{summary(client.state)}", file=out, flush=True)
    return 1 if failed else 0


async def _last_words(client: Client) -> str:
    state = client.state
    latest, best = state.experiments[-1] if state.experiments else None, state.best
    if latest and latest.trial and best and best.trial and best.trial.started > latest.trial.started:
        latest = best  # It was measured again, for the latest one's sake.
    log = await client.fetch(latest.number, "log") if latest else ""
    lines = [words.clean(text).rstrip() for text in log.splitlines()[-LOG_TAIL:]]
    return "\n".join(f"          | {text}" for text in lines)


def opening(state: StudyState) -> str:
    """What a viewer who comes now should know."""
    lower = "lower" if state.direction == "minimize" else "higher"
    said = (
        f"study {state.tag} on branch {state.branch}: {state.metric}, {lower} is better, {state.budget:g} s a trial on "
        f"{state.device}, agent {state.agent}, sandbox {state.sandbox}, engine pid {state.engine_pid}"
    )
    return f"{said}\n{overview(state, alive=True)}" if state.experiments else said


def line(record: Record, state: StudyState) -> str | None:
    """An event as one readable line; `state` is the state after it. None where another line says it."""
    event = record.event
    match event:
        case ev.EngineStarted():
            return opening(state)
        case ev.ProposalStarted() if event.agent != BASELINE:
            said = f"{words.name(event.number)} {event.agent} proposes"
        case ev.Proposed(repair=int(attempt)) if attempt:
            said = f"{words.name(event.number)} repaired, attempt {attempt}"
        case ev.Proposed():
            effect = f"; expected: {event.expected_effect}" if event.expected_effect else ""
            said = f"{words.name(event.number)} proposed: {event.hypothesis}{effect}"
        case ev.TrialStarted():
            kept = ", the incumbent," if event.number == state.incumbent else ""
            again = " again" if event.trial > 1 else ""
            said = f"{words.name(event.number)}{kept} trains{again} for {event.budget:g} s on {event.device}"
            said += f", seed {event.seed}"
        case ev.TrialFinished(outcome="ok") if state.audit:
            claim = "" if event.value is None else f" and claims {state.metric} {event.value:.4f}"
            said = f"{words.name(event.number)} ends after {event.wall_seconds:.1f} s{claim}; its audit comes next"
        case ev.TrialFinished(outcome="ok", value=float(value)):
            said = f"{words.name(event.number)} measured: {state.metric} {value:.4f} after {event.wall_seconds:.1f} s"
        case ev.TrialPaused():
            said = f"{words.name(event.number)} waits in its training"
        case ev.TrialResumed():
            said = f"{words.name(event.number)} trains on"
        case ev.Stepped():
            said = "one step"
        case ev.Decided():
            measured = "" if event.value is None else f" {words.value(event.value)}"
            by = "" if event.by == "judge" else f" by the {event.by}"
            said = f"{words.name(event.number)} {event.verdict.upper()}{by}{measured}: {event.reason}"
        case _:
            return words.happened(record)
    return f"{words.clock(record.time)} {words.one_line(said)}"


def _progress(step: Step) -> str:
    far = "" if step.progress is None else f" {100 * step.progress:.0f} % of its budget,"
    return f"{words.clock(time.time())} {words.name(step.number)} at{far} step {step.step}, loss {step.loss:.4f}"


def summary(state: StudyState) -> str:
    """How the study stands at its end: baseline, best, gain, and what became of each proposal."""
    tried = [experiment for experiment in state.experiments if experiment.agent != BASELINE and experiment.verdict]
    run = [experiment for experiment in tried if experiment.started >= state.engine_started]
    rows = [("study", f"{state.tag}: {words.one_line(state.mode_reason)}"), *_standing(state)]
    if 0 < len(run) < len(tried):
        kept = sum(experiment.verdict == "keep" for experiment in run)
        rows.append(("this run", f"{len(run)} experiments, {kept} kept"))
    if state.best is not None:
        rows.append(("branch", f"{state.branch}; what it gained: git diff {state.base[:7]} {state.branch}"))
        rows.append(("results", f".labtop/{state.tag}/results.tsv"))
    return _table(rows)


def overview(state: StudyState, *, alive: bool) -> str:
    """How the study stands now."""
    mode = words.mode_word(state, connected=alive)
    measured, doing = words.measuring(state), words.activity(state, None, time.time())
    if measured is not None and state.mode != "stopped":
        trial = words.training(state)
        begun = f", begun {words.duration(time.time() - trial.started)} ago" if trial else ""
        doing = f"{measured}{' waits' if trial and trial.paused else ''}{begun}"
    rows = [("study", f"{state.tag}, {mode}: {doing}"), *_standing(state)]
    if alive:
        rows.append(("engine", f"pid {state.engine_pid} on {state.engine_host}, agent {state.agent}"))
    return _table(rows)


def _standing(state: StudyState) -> list[tuple[str, str]]:
    counts = state.counts()
    rows = [
        (
            "experiments",
            f"{state.tried}: {counts['keep']} kept, {counts['discard']} discarded, {counts['crash']} crashed, "
            f"{counts['reject']} rejected",
        )
    ]
    if state.baseline is not None:
        rows.append(("baseline", f"{words.value(state.baseline.value)} {state.metric}"))
    if state.best is not None:
        rows.append(("best", f"{words.value(state.best.value)} {_title(state.best)}"))
    if (gained := words.gain(state)) is not None:
        error = state.gain_error
        rows.append(("gain", gained + (f", ± {words.spread(error)}" if error else "")))
    if (luck := words.noise(state)) is not None:
        rows.append(("noise", luck))
    rows += [
        ("agent", f"{agent}: {words.bill(used)}; edits: {words.edits(used)}") for agent, used in state.usage.items()
    ]
    if (audits := words.audits(state)) is not None:
        rows.append(("audits", audits))
    return rows


def _title(experiment: Experiment) -> str:
    return f"#{words.name(experiment.number)} {words.what(experiment)}"


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def as_json(state: StudyState, *, alive: bool) -> str:
    """The state, and what is derived from it, as JSON."""
    derived = {
        "alive": alive,
        "experiments": [_whole(experiment) for experiment in state.experiments],
        "best": _whole(state.best),
        "baseline": _whole(state.baseline),
        "current": _whole(state.current),
        "measuring": _whole(state.measuring),
        "gain": state.gain,
        "counts": state.counts(),
        "noise": asdict(state.noise),
        "used": state.used,
    }
    body = {name: getattr(state, name) for name in StudyState.__struct_fields__}
    return msgspec.json.format(msgspec.json.encode({**body, **derived}), indent=2).decode()


def _whole(experiment: Experiment | None) -> dict[str, object] | None:
    """An experiment with what follows from its trials."""
    if experiment is None:
        return None
    return {**msgspec.to_builtins(experiment), "values": experiment.values, "colour": experiment.colour}
