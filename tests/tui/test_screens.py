"""What a person sees in each state of a study, at each size: whole screens, kept as text in `screens/`.

Where one is meant to change, `LABTOP_SCREENS=write pytest tests/tui/test_screens.py` writes them anew; read the diff.
"""

import os
import time
from pathlib import Path

import pytest

from loop import events as ev
from tui.view import View

SCREENS = Path(__file__).parent / "screens"
NOW = 1_700_003_600.0

SAID = """## Warm down later
The curve of **0001** still falls at its end, so `WARMDOWN` is *too early*:

- change one constant
- hold it against 0001
"""


def proposing(samples):
    yield ev.ProposalStarted(number=3, base="b" * 40, agent="llm", spec=1)
    yield ev.AgentDelta(number=3, kind="thought", text="what did the last two have in common?\nthey were too slow")
    yield ev.AgentDelta(number=3, kind="text", text=SAID)
    yield ev.AgentDelta(number=3, kind="tool", text="edit train.py\n  MATRIX_LR\n  twice")


def proposed(samples):
    changes = (ev.Change("MATRIX_LR", "0.02", "0.04"),)
    hypothesis = "a larger step for matrices"
    yield ev.DraftDiff(number=3, diff=samples.diff)
    yield ev.Proposed(number=3, commit="c" * 40, hypothesis=hypothesis, expected_effect="0.002", changes=changes)


def training(samples):
    yield ev.Approved(number=3)
    yield ev.TrialStarted(number=3, trial=1, device="cuda", seed=1, budget=300.0)
    yield from (samples.step(3, at) for at in range(40))
    yield ev.LogLines(number=3, trial=1, lines=("compiling", "vocabulary 4096", "evaluated at step 20: 1.7012"))
    yield samples.reading


def crash(samples):
    reason = "CUDA out of memory: 23.1 GiB were wanted"
    yield ev.TrialFinished(number=3, trial=1, outcome="crash", exit_code=1, reason=reason, wall_seconds=130.0)
    yield ev.Decided(number=3, verdict="crash", reason=reason)


def finished(samples):
    yield ev.EngineStopped(reason="3 experiments done")


STATES = (
    ("proposing", proposing, "+2 lines, o shows them"),
    ("waiting for approval", lambda samples: [ev.GateSet(on=True), *proposed(samples)], "0003 waits for your approval"),
    ("training", training, "training 0003 · 1:57 of 5:00"),
    ("crash", crash, "1 crash"),
    ("finished", finished, "3 experiments done"),
)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_state_looks_as_it_did(
    samples, cardboard, cardboard_cockpit, sees, text_of, until, monkeypatch, size
):
    monkeypatch.setattr(View, "now", lambda view: NOW)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    async def compare(state):
        app._cockpit.draw_now()
        await pilot.pause()
        path = SCREENS / f"{state.replace(' ', '-')}-{size[0]}x{size[1]}.txt"
        shown = "".join(f"{line.rstrip()}\n" for line in text_of(app).splitlines())
        if os.environ.get("LABTOP_SCREENS") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown)
        assert shown == path.read_text(), f"{path.name} is another one now"

    async with cardboard_cockpit(size) as (app, pilot):
        chart = app._cockpit.query_one("ChartPane")
        await sees(app, "waiting for the engine's first word")
        await compare("empty")
        cardboard.tell_study("keep", "discard")
        cardboard.tell(samples.reading)
        await until(lambda: chart._plots or not chart.is_on_screen, "the chart is loaded")
        if size[0] == 80:
            await pilot.press("1")
        for state, told, words in STATES:
            cardboard.tell(*told(samples))
            await until(lambda: app.view.state.seq == len(cardboard.records), "it is told")
            await sees(app, words)
            await pilot.pause(0.1)
            await compare(state)
        cardboard.tell(ev.EngineStarted(pid=4243, host="h", agent="llm", version="0"))
        await sees(app, "RUNNING")
        await cardboard.vanish()
        await sees(app, "NO ENGINE")
        await compare("detached")
