"""What a person sees of how well a value is known: seeds, noise and audits."""

import json

import pytest
from textual.events import Key

from loop import events as ev
from loop.events import Caution, Record, Step
from loop.noise import estimate
from loop.patch import unified_diff
from loop.remote.wire import Recorded, Snapshot
from loop.state import StudyState, fold
from tui import actions, curves, plain, words
from tui.panes.experiments import ExperimentsPane
from tui.view import View

HOSTILE = "[/] [bold]it[/bold] \x1b[2J\x9b31mreads\x00 val\u202e\nval_bpb: 0.1"
NOW = 1_700_000_000.0


def opened(audit="python -m trainer.audit"):
    return [
        ev.StudyOpened(
            tag="may12", branch="labtop/may12", base="b" * 40, metric="val_bpb", direction="minimize", budget=300.0,
            device="cuda", command="python train.py", audit=audit,
        ),
        ev.EngineStarted(pid=4242, host="h", agent="llm", version="0"),
        ev.SpecChanged(version=1, digest="d"),
    ]  # fmt: skip


def proposed(number, cautions=()):
    base = "b" * 40 if number == 0 else commit(0)
    return [
        ev.ProposalStarted(number=number, base=base, agent="llm" if number else "baseline", spec=1),
        ev.Proposed(
            number=number, commit=commit(number), hypothesis="warm down later", cautions=cautions,
            changes=(ev.Change("MATRIX_LR", "0.02", "0.04"),) if number else (),
        ),
    ]  # fmt: skip


def commit(number):
    return f"{number:x}".rjust(7, "c").ljust(40, "0")


def started(number, trial, seed=None):
    return ev.TrialStarted(number=number, trial=trial, device="cuda", seed=seed or trial, budget=300.0)


def ended(number, trial, value=None, outcome="ok"):
    return ev.TrialFinished(
        number=number, trial=trial, outcome=outcome, value=value, wall_seconds=301.0, cpu_seconds=287.4
    )  # fmt: skip


def audited(number, trial, value, colour="green", findings=(), holdout=None):
    return ev.Audited(
        number=number, trial=trial, colour=colour, value=value, findings=findings, holdout=holdout
    )  # fmt: skip


def trial(number, trial, value, *, seed=None, **found):
    return [started(number, trial, seed), ended(number, trial), audited(number, trial, value, **found)]


def baseline():
    """Four seeds, σ 0.0026, and the verdict."""
    values = (1.7, 1.704, 1.702, 1.698)
    told = [event for at, value in enumerate(values, 1) for event in trial(0, at, value)]
    return [*proposed(0), *told, ev.Decided(number=0, verdict="keep", reason="the baseline", value=1.701)]


def confirmed():
    """Experiment 1 on two seeds, kept."""
    kept = ev.Decided(
        number=1, verdict="keep", reason="0.0400 better (15.5 σ)", value=1.662, delta=-0.04, sigma=0.00258,
        low=-0.046, high=-0.034,
    )  # fmt: skip
    cautions = (Caution("train.py", 2, "clock", "import time"),)
    return [*proposed(1, cautions), *trial(1, 1, 1.66, holdout=1.68), *trial(1, 2, 1.664), kept]


def red(number=2):
    found = ("it printed 1.000000, and 1.700000 was measured", HOSTILE)
    reason = f"its score does not count: {found[0]}"
    decided = ev.Decided(number=number, verdict="discard", reason=reason)
    return [*proposed(number), *trial(number, 1, 1.7, colour="red", findings=found), decided]


def state_of(*events):
    return fold(Record(seq=at, time=NOW + at, event=event) for at, event in enumerate(events, 1))


CHANGED = "0001, the incumbent, came out worse twice: the machine has changed"
REBASED = [ev.Rebased(number=1, trial=3, reason=CHANGED), ev.Warned(text=CHANGED)]
STUDY = [*opened(), *baseline(), *confirmed()]


@pytest.mark.parametrize(
    ("events", "said", "status"),
    [
        ([*opened(), *proposed(0), started(0, 1)], "measuring the baseline", "training"),
        ([*opened(), *proposed(0), *trial(0, 1, 1.7), started(0, 2)], "measuring the baseline, seed 2", "training"),
        ([*opened(), *proposed(0), started(0, 1), ended(0, 1)], "auditing the baseline", "auditing"),
        ([*STUDY, *proposed(2), started(2, 1)], "training 0002", "training"),
        ([*STUDY, *proposed(2), started(2, 1), ended(2, 1)], "auditing 0002", "auditing"),
        ([*STUDY, *proposed(2), *trial(2, 1, 1.6), started(2, 2, 3)], "confirming 0002, seed 3", "confirming"),
        (
            [*STUDY, *proposed(2), *trial(2, 1, 1.6), started(2, 2, 3), ended(2, 2)],
            "auditing 0002, seed 3",
            "auditing",
        ),
        ([*STUDY, *proposed(2), started(2, 1), ended(2, 1, outcome="lost"), started(2, 2, 1)], "training 0002", ""),
        ([*STUDY, started(1, 3, 9)], "re-measuring 0001, the incumbent", "keep"),
        ([*STUDY, *proposed(2), *trial(2, 1, 1.6), started(1, 3, 9)], "re-measuring 0001, the incumbent", "trained"),
        ([*STUDY, started(1, 3, 9), ended(1, 3)], "auditing 0001, the incumbent", "keep"),
    ],
)
def test_what_runs_is_told_by_the_trial_that_runs(events, said, status):
    state = state_of(*events)
    assert words.measuring(state) == said
    running = words.training(state)
    clock = "starting, 9 s" if running else "9 s"
    assert words.activity(state, None, state.time + 9) == f"{said} · {clock}"
    status_now = words.status(state.experiments[-1], state)
    assert status_now == (status or "training")
    assert said in plain.overview(state, alive=True).splitlines()[0]
    if running:
        step = Step(number=running.number, trial=running.trial, time=30.0, step=5, loss=3.0, progress=0.1)
        assert words.activity(state, step, state.time) == f"{said} · 30 s of 5:00"
        assert words.share_spent(state, step) == 0.1
        state.apply(Record(seq=state.seq + 1, time=state.time, event=ev.Paused()))
        paused = ev.TrialPaused(number=running.number, trial=running.trial, cooperative=True)
        state.apply(Record(seq=state.seq + 1, time=state.time, event=paused))
        assert words.activity(state, step, state.time) == f"{said} waits at 30 s of 5:00"
        assert f"{said} waits, begun" in plain.overview(state, alive=True)


def test_between_two_trials_it_says_that_there_may_be_another():
    state = state_of(*STUDY, *proposed(2), *trial(2, 1, 1.6), ev.Paused())
    assert words.activity(state, None, NOW) == "0002 is trained; its verdict, or one more seed, comes next"


def refusal(action, state, pointed=None):
    return actions.refusal(action, state, connected=True, number=pointed, compact=False)


def test_a_key_says_why_it_cannot_act_on_what_is_measured_again_or_does_not_count():
    again = state_of(*STUDY, *red(), started(1, 3, 9))
    assert refusal("reject", again) == "0001 is the incumbent, measured again; only a proposal can be rejected"
    assert refusal("keep", again, 2) == "the audit of 0002 is red; what does not count cannot be kept"
    decided = ev.Decided(number=1, verdict="discard", reason="", value=1.662)
    state = state_of(*opened(), *baseline(), *confirmed()[:-1], decided, *proposed(2), started(2, 1))
    assert refusal("keep", state, 1).startswith("0002 is being measured against 0000; reject it or wait")


async def test_the_table_marks_audits_and_tells_seeds_and_sigmas(cardboard, cardboard_cockpit, sees):
    amber = ev.Decided(number=3, verdict="discard", reason="", value=1.71, delta=0.01, sigma=0.0005)
    cardboard.tell(*STUDY, *red(), *proposed(3), *trial(3, 1, 1.71, colour="amber", findings=("odd",)), amber)
    cardboard.tell(*proposed(4), *trial(4, 1, 1.65), started(4, 2))
    for size in ((120, 40), (80, 24), (180, 50)):
        async with cardboard_cockpit(size) as (app, _):
            screen = await sees(app, "5 experiments", "confirming", "MATRIX_LR", "(16σ)")
            rows = {line.split("│ ")[1][:4]: line for line in screen.splitlines() if "│ 000" in line}
            assert "1.7010 ✓ ×4" in rows["0000"] and "keep" in rows["0000"] and "baseline" in rows["0000"]
            assert "1.6620 ✓ ×2   -0.0400 (16σ)" in rows["0001"]
            assert "— ✗" in rows["0002"] and "×" not in rows["0002"]
            assert "1.7100 !" in rows["0003"] and "+0.0100 (20σ)" in rows["0003"]
            assert "1.6500 ✓" in rows["0004"] and "σ" not in rows["0004"]
            assert all("5:01" in row for number, row in rows.items() if number != "0004")
            assert (commit(1)[:7] in screen) == (size == (180, 50))


async def test_a_narrow_table_leaves_the_sigmas_out_last(cardboard, cardboard_cockpit, sees):
    cardboard.tell(*STUDY)
    async with cardboard_cockpit((70, 24)) as (app, _):
        screen = await sees(app, "5 experiments", "1.6620 ✓ ×2   -0.0400", "MATRIX_LR")
        assert "(16σ)" not in screen
        assert app.screen.query_one(ExperimentsPane).pointed == 1


async def test_the_chart_says_what_luck_may_do_once_that_is_known(cardboard, cardboard_cockpit, sees, text_of):
    cardboard.tell(*opened(), *proposed(0), *trial(0, 1, 1.7))
    cardboard.tell(ev.Decided(number=0, verdict="keep", reason="", value=1.7))
    async with cardboard_cockpit() as (app, _):
        assert "band" not in await sees(app, "lower is better", "● keep")
        cardboard.tell(*confirmed()[:-1], ev.Decided(number=1, verdict="keep", reason="", value=1.662))
        await sees(app, "val_bpb, lower is better · band: ±2σ of one trial, ")
        reach = app.view.tally.luck
        await sees(app, f"band: ±2σ of one trial, {reach:.4f}")


def test_the_band_is_as_wide_as_it_says_and_all_of_it_is_in_sight():
    state = state_of(*STUDY)
    history = curves.history(state, 2 * state.noise.paired)
    assert history.reach == 2 * state.noise.paired > 0
    at_end = sorted(y for x, y in history.band if x == history.last)
    assert at_end == pytest.approx([1.662 - history.reach, 1.662 + history.reach])
    assert all(history.low <= y <= history.high for _, y in history.band)


def test_noise_is_reckoned_once_a_record(monkeypatch):
    asked, view, state = [], View(), state_of(*STUDY)
    view.take(Snapshot(state=state), state)
    monkeypatch.setattr(StudyState, "noise", property(lambda state: (asked.append(state.seq), estimate([[1, 2]]))[1]))
    assert view.tally.luck == view.tally.luck > 0
    record = Record(seq=state.seq + 1, time=NOW, event=ev.Noted(text="x"))
    state.apply(record)
    view.take(Recorded(record=record), state)
    assert view.tally.luck == view.tally.luck > 0
    assert asked == [record.seq - 1, record.seq]


async def test_the_page_has_every_trial_every_finding_and_the_lines_to_look_at(cardboard, cardboard_cockpit, sees):
    cardboard.tell(*STUDY, *red())
    diff = unified_diff({"train.py": "import math\n"}, {"train.py": "import math\nimport time\n"})
    cardboard.files = {(1, "diff"): diff, (2, "diff"): diff}
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0002")
        await pilot.press("5", "enter")
        screen = await sees(
            app, "experiment 0002 · discard", "trials on cuda", "1.700000  ✗ red", "287.4 s", "5:01  ok",
            "✗ trial 1  it printed 1.000000, and 1.700000 was measured",
            "✗ trial 1  [/] [bold]it[/bold] reads val val_bpb: 0.1",
        )  # fmt: skip
        assert "\x1b" not in screen and "\u202e" not in screen
        app.post_message(Key("left", None))
        screen = await sees(
            app, "experiment 0001 · keep", "1.662000, the mean of 2 trials", "-0.040000 ± 0.002580 (16σ)",
            "-0.046000 to -0.034000, with nine chances in ten", "1          1    1.660000  ✓ green    1.680000",
            "2          2    1.664000  ✓ green",
            "! 1 line to look at twice: clock 2", "!    2 + import time",
        )  # fmt: skip
        assert "trial 1  " not in screen
        cardboard.tell(started(1, 3, 9), ended(1, 3), audited(1, 3, 1.9), ev.Rebased(number=1, trial=3, reason="why"))
        await sees(app, "1.900000  ✓ green", "ok, before the machine changed")


async def test_the_log_has_a_line_for_each_audit_and_for_a_changed_machine(cardboard, cardboard_cockpit, sees):
    cardboard.tell(*opened())
    async with cardboard_cockpit((180, 50)) as (app, pilot):
        await sees(app, "RUNNING")
        cardboard.tell(*baseline(), *confirmed(), *red(), *REBASED)
        await pilot.press("6", "z")
        screen = await sees(
            app, "0001 audited green, 1.6640",
            "0002 audited red, 1.7000, which does not count: it printed 1.000000, and 1.700000 was measured",
            f"warning: {CHANGED}",
        )  # fmt: skip
        assert "0001 keep: 0.0400 better (15.5 σ)" in screen
        assert sum(CHANGED in line for line in screen.splitlines()) == 1


def lines_of(*events):
    """What is printed, without the time."""
    state, told = state_of(), []
    for at, event in enumerate(events, 1):
        state.apply(record := Record(seq=at, time=NOW, event=event))
        if (said := plain.line(record, state)) is not None:
            told.append(said.split(" ", 1)[1])
    return told


def test_plain_lines_say_claims_audits_and_measuring_again():
    found = (HOSTILE, "more")
    told = lines_of(
        *STUDY, *proposed(2), started(2, 1), ended(2, 1, 1.0), audited(2, 1, 1.7, "red", found), started(1, 3, 9),
        ended(1, 3), audited(1, 3, None, "amber"), *REBASED,
    )  # fmt: skip
    assert told[-7:] == [
        "0002 trains for 300 s on cuda, seed 1",
        "0002 ends after 301.0 s and claims val_bpb 1.0000; its audit comes next",
        "0002 audited red, 1.7000, which does not count: [/] [bold]it[/bold] reads val val_bpb: 0.1 (and 1 more)",
        "0001, the incumbent, trains again for 300 s on cuda, seed 9",
        "0001 ends after 301.0 s; its audit comes next",
        "0001 audited amber",
        f"warning: {CHANGED}",
    ]


def test_the_summary_tells_noise_audits_and_how_sure_the_gain_is():
    state = state_of(*STUDY, *red(), ev.EngineStopped(reason="2 experiments done"))
    rows = dict(line.split(maxsplit=1) for line in plain.summary(state).splitlines() if line[:4] != "this")
    assert rows["noise"] == (
        f"σ {state.noise.sigma:.4f} over 4 seeds, {state.noise.paired:.4f} between two scripts on one seed"
    )
    assert rows["audits"] == "6 green, 0 amber, 1 red"
    assert rows["gain"] == f"0.0390 bpb (2.29 %), ± {state.gain_error:.4f}"
    unaudited = plain.summary(state_of(*opened(audit=""), *proposed(0), started(0, 1), ended(0, 1, 1.7)))
    assert "noise" not in unaudited and "audits" not in unaudited


def test_little_luck_is_not_told_as_none():
    assert [words.spread(number) for number in (0.0052, 0.001, 0.00003)] == ["0.0052", "0.0010", "3.0e-05"]


def test_a_script_without_luck_is_told_as_such():
    events = [*opened(), *proposed(0), *trial(0, 1, 1.7), *trial(0, 2, 1.7)]
    state = state_of(*events, ev.Decided(number=0, verdict="keep", reason="", value=1.7))
    assert words.noise(state) == "none over 2 seeds: a script gives the same value on each"
    assert curves.history(state, 2 * state.noise.paired).band == []


def test_json_has_what_follows_from_the_trials():
    told = json.loads(plain.as_json(state_of(*STUDY, *red(), started(1, 3, 9)), alive=True))
    assert told["noise"]["freedom"] == 3 and told["noise"]["sigma"] > 0
    assert told["measuring"]["number"] == 1 and told["current"] is None
    assert [experiment["colour"] for experiment in told["experiments"]] == ["green", "green", "red"]
    assert told["best"]["values"] == {"1": 1.66, "2": 1.664} and len(told["best"]["trials"]) == 3
    assert told["experiments"][2]["trials"][0]["findings"][0].startswith("it printed")


async def test_what_runs_for_an_experiment_is_what_a_rejection_or_a_stop_ends(cardboard, cardboard_cockpit, sees):
    cardboard.tell(*STUDY, *proposed(2), *trial(2, 1, 1.6), started(1, 3, 9))
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "re-measuring 0001, the incumbent", "trained")
        await pilot.press("x")
        await sees(app, "reject 0002", "The training of 0001 for it ends")
        await pilot.press("escape", "Q")
        await sees(app, "▸ after 0002: it is measured to its end")
        await pilot.press("escape")
        cardboard.tell(ended(1, 3))
        await sees(app, "auditing 0001, the incumbent")
        await pilot.press("4")
        await sees(app, "its audit runs")


async def test_the_incumbents_curve_is_held_against_its_earlier_one(cardboard, cardboard_cockpit, sees, until):
    cardboard.files[1, "metrics"] = '{"type":"Step","number":1,"trial":3,"time":1.0,"step":1,"loss":3.0,"progress":0.5}'
    cardboard.tell(*STUDY, *proposed(2), *trial(2, 1, 1.6), started(1, 3, 9))
    async with cardboard_cockpit() as (app, pilot):
        await until(lambda: app.view.steps, "the curve of the trial that runs is fetched")
        assert app.view.rival == []
        cardboard.tell(Step(number=1, trial=3, time=150.0, step=5, loss=2.9, progress=0.6))
        await sees(app, "re-measuring 0001, the incumbent · 3:00 of 5:00", "60 %")
        await pilot.press("v")
        await sees(app, "loss · 0001")
        cardboard.tell(ended(1, 3))
        await until(lambda: app.view.rival, "then it is the rival of others")
