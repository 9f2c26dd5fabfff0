"""A study on a page of Markdown: what was kept, what it cost, and what was learned from the rest. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loop.state import Experiment, StudyState
from tui import words

FAILURES = 12
"""So many of the latest ones are told in full."""


def report(state: StudyState, standing: str) -> str:
    """`standing`: the study's overview, as `labtop status` prints it."""
    better = "lower" if state.direction == "minimize" else "higher"
    parts = [
        f"# {state.tag}: {state.metric}, {better} is better",
        f"`{state.command}`, {state.budget:g} s a trial on {state.device}, branch `{state.branch}`.",
        f"```\n{standing}\n```",
        "## What was kept",
        _table(("#", state.metric, "against what it replaced", "trials", "audit", "commit", "change"), _kept(state)),
        f"## {state.metric} against memory",
        "Each of these is beaten by none that takes less memory:",
        _table(("#", state.metric, "GiB", "verdict", "change"), _front(state)),
        "## By version of program.md",
        _table(("version", "experiments", "kept", "gain"), _by_spec(state)),
        *_by_agent(state),
        "## What failed last",
        _table(("#", "verdict", "why", "change"), _failed(state)),
    ]
    if state.notes:
        parts += ["## Notes", "\n".join(f"- {_cell(note)}" for note in state.notes)]
    return "\n\n".join(parts)


def front(state: StudyState) -> list[Experiment]:
    """The experiments that none of another is at least as good as in both the metric and memory, least memory first."""
    sign = 1.0 if state.direction == "minimize" else -1.0
    known = [
        (experiment.memory_gb, sign * experiment.value, experiment)
        for experiment in state.experiments
        if experiment.value is not None and experiment.memory_gb is not None and experiment.colour != "red"
    ]
    best, found = float("inf"), []
    for _, value, experiment in sorted(known, key=lambda one: (one[0], one[1], one[2].number)):
        if value < best:
            best = value
            found.append(experiment)
    return found


def _kept(state: StudyState) -> Iterable[Sequence[str]]:
    for experiment in state.experiments:
        if experiment.verdict == "keep":
            error = f" ± {experiment.sigma:.4f}" if experiment.sigma else ""
            by = ", by hand" if experiment.by == "person" else ""
            yield (
                *_head(experiment),
                words.delta(experiment.delta) + error + by,
                str(len(experiment.trials)),
                experiment.colour or "",
                (experiment.commit or "")[:7],
                words.what(experiment),
            )


def _front(state: StudyState) -> Iterable[Sequence[str]]:
    for experiment in front(state):
        yield (
            *_head(experiment),
            f"{experiment.memory_gb:.2f}",
            experiment.verdict or experiment.stage,
            words.what(experiment),
        )


def _by_spec(state: StudyState) -> Iterable[Sequence[str]]:
    tried = [experiment for experiment in state.experiments if experiment.stage == "decided"]
    counts = Counter(experiment.spec for experiment in tried)
    for spec, count in sorted(counts.items()):
        kept = [one for one in tried if one.spec == spec and one.verdict == "keep" and one.delta is not None]
        gain = sum(state.better_by(one.delta or 0.0, 0.0) for one in kept)
        yield str(spec), str(count), str(len(kept)), f"{gain:.4f}" if kept else words.NOTHING


def _by_agent(state: StudyState) -> list[str]:
    rows = [
        (agent, str(used.turns), words.bill(used), words.edits(used), words.duration(used.seconds))
        for agent, used in state.usage.items()
    ]
    return ["## By agent", _table(("agent", "turns", "used", "edits that could be run", "time"), rows)] if rows else []


def _failed(state: StudyState) -> Iterable[Sequence[str]]:
    failed = [one for one in state.experiments if one.verdict not in (None, "keep")]
    for experiment in failed[-FAILURES:]:
        yield words.name(experiment.number), experiment.verdict or "", experiment.reason, words.what(experiment)


def _head(experiment: Experiment) -> tuple[str, str]:
    return words.name(experiment.number), words.value(experiment.value)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join([f"| {' | '.join(titles)} |", "|" + "---|" * len(titles), *lines]) if lines else "Nothing yet."


def _cell(text: str) -> str:
    """Foreign text in a table's cell: one line, and no markup of its own."""
    plain = words.one_line(text)
    for sign in "\\`*_[]<>|":
        plain = plain.replace(sign, f"\\{sign}")
    return plain
