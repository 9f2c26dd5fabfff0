"""The screen, on an engine of cardboard that can say anything, and fall silent at any time."""

import asyncio
import importlib
import time

import msgspec
import pytest
from msgspec.structs import replace
from textual.drivers.headless_driver import HeadlessDriver
from textual.events import CursorPosition, Key

from loop.events import (
    AgentDelta,
    Decided,
    Device,
    DraftDiff,
    EngineStopped,
    LogLines,
    Noted,
    Paused,
    ProposalFailed,
    ProposalStarted,
    Warned,
)
from tui import link
from tui.panes.log import LogPane
from tui.screens.cockpit import Cockpit

HOSTILE = "[/] [bold]x[/bold] \x1b[2J\x9b31m\x00\u202e$(reboot) " + "y" * 5000


@pytest.fixture
def reading(samples):
    """With a card that tells nothing, beside one that tells everything."""
    return replace(samples.reading, devices=(*samples.reading.devices, Device(name="bare")))


@pytest.fixture
def telemetry(samples, reading):
    """All that comes of an experiment, by its number."""
    return lambda number: [
        AgentDelta(number=number, kind="thought", text="the curve still falls, and falls" + ", and falls" * 4 + "\n"),
        AgentDelta(number=number, kind="text", text="## Plan\n**raise** the `lr`, "),
        AgentDelta(number=number, kind="text", text="twice"),
        AgentDelta(number=number, kind="tool", text="edit train.py"),
        DraftDiff(number=number, diff=samples.diff),
        *(samples.step(number, at) for at in range(40)),
        LogLines(number=number, trial=1, lines=("compiling", "step one")),
        reading,
    ]


async def test_all_that_is_known_is_on_the_screen(telemetry, cardboard, cardboard_cockpit, sees):
    cardboard.tell_study("discard", "crash", "keep", "reject", None)
    cardboard.tell(*telemetry(5))
    cardboard.files[3, "metrics"] = '{"type":"Step","number":3,"trial":1,"time":1.0,"step":1,"loss":3.0,"progress":0.5}'
    async with cardboard_cockpit() as (app, pilot):
        screen = await sees(
            app, "RUNNING", "training 0005 · 1:57 of 5:00", "best 1.6700 0003", "gain 0.0300 bpb (1.76 %)"
        )
        for words in (
            "labtop/may12", "agent llm", "program.md 1", "4 tried", "1 keep", "1 discard", "1 crash", "1 reject",
            "warm down later", "expected  a little", "Plan", "raise the lr, twice", "> edit train.py",
            "train.py  +1 -1", "MATRIX_LR  0.02 -> 0.04", "11 - MATRIX_LR = 0.02", "11 + MATRIX_LR = 0.04",
            "val_bpb, lower is better", "97 %", "61 of 139 GiB", "H200", "61 °C · 612/700 W · 1980 MHz", "idle",
            "1.23 M", "mfu 41 %", "compiling", "▼ follow", "44.0", "5:01", "incumbent 0003",
        ):  # fmt: skip
            assert words in screen, f"{words!r} is not in\n{screen}"
        assert sum(line.startswith("│ │ ") for line in screen.splitlines()) == 2  # A thought that wraps is one still.
        rows = [line for line in screen.splitlines() if "│ 000" in line]
        assert [row.split()[1] for row in rows] == ["0005", "0004", "0003", "0002", "0001", "0000"]
        assert [next(w for w in row.split() if w in STATUS_WORDS) for row in rows] == [
            "training", "reject", "keep", "crash", "discard", "keep",
        ]  # fmt: skip
        await pilot.press("v")
        await sees(app, "loss · 0005", "incumbent 0003")


STATUS_WORDS = ("training", "keep", "discard", "crash", "reject")


@pytest.mark.parametrize(
    ("size", "no_color"),
    [((120, 40), True), ((80, 24), False), ((180, 50), False), ((40, 10), True)],
    ids=("120x40 no colour", "80x24", "180x50", "40x10 no colour"),
)
async def test_every_pane_and_page_opens_at_every_size(
    telemetry, cardboard, cardboard_cockpit, sees, monkeypatch, size, no_color
):
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    cardboard.tell_study("discard", "crash", None, hypothesis=HOSTILE)
    cardboard.tell(*telemetry(3), AgentDelta(number=3, kind="text", text=HOSTILE))
    cardboard.tell(LogLines(number=3, trial=1, lines=(HOSTILE,)))
    async with cardboard_cockpit(size) as (app, pilot):
        await sees(app, "RUNNING", "p pause", "x reject", "? help", "q detach")
        assert app.no_color == no_color
        for key in ("1", "2", "3", "v", "4", "5", "6", "z", "z", "tab", "shift+tab"):
            await pilot.press(key)
        for key in ("question_mark", "x", "k", "m", "Q", "e"):
            await pilot.press(key, "down", "escape")
        await pilot.press("5", "enter")
        await sees(app, "experiment 0003")
        await pilot.press("left", "left", "right", "escape")
        await pilot.resize_terminal(100, 30)
        await pilot.resize_terminal(*size)
        await sees(app, "RUNNING")


async def test_a_small_terminal_shows_one_pane_and_the_rest_in_short(
    telemetry, cardboard, cardboard_cockpit, sees, text_of
):
    cardboard.tell_study("keep", None)
    cardboard.tell(*telemetry(2))
    async with cardboard_cockpit((80, 24)) as (app, pilot):
        screen = await sees(app, "5 experiments", "baseline", "gpu 0 97 %", "loss ")
        assert "MATRIX_LR = 0.04" not in screen and "compiling" not in screen
        await pilot.press("2")
        screen = await sees(app, "11 + MATRIX_LR = 0.04")
        assert "baseline" not in screen
        await pilot.press("tab")
        await sees(app, "lower is better")
        await pilot.press("z")
        await sees(app, "room for one pane")
        assert all(len(line) == 80 for line in text_of(app).splitlines())


async def test_z_shows_the_focused_pane_alone_and_back(telemetry, cardboard, cardboard_cockpit, sees, text_of):
    cardboard.tell_study("keep", None)
    cardboard.tell(*telemetry(2))
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "compiling", "cores")
        await pilot.press("6", "z")
        await sees(app, "compiling")
        await until_gone(app, text_of, "cores")
        await pilot.press("z")
        await sees(app, "compiling", "cores")


async def until_gone(app, text_of, words):
    for _ in range(3000):
        if words not in text_of(app):
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{words!r} stayed on the screen")


async def test_a_key_that_cannot_act_says_why(cardboard, cardboard_cockpit, sees):
    cardboard.tell_study()
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "baseline")
        await pilot.press("x")
        await sees(app, "nothing is under way that could be rejected")
        await pilot.press("k")
        await sees(app, "0000 is the incumbent already")
        assert cardboard.commands == []


async def test_before_there_is_anything_the_screen_says_what_will_come(cardboard, cardboard_cockpit, sees):
    async with cardboard_cockpit() as (app, _):
        await sees(
            app, "waiting for the engine's first word", "the baseline is being measured", "the baseline comes first",
            "the baseline is measured first", "the agent's first change will stand here",
            "the trial's output will stand here",
        )  # fmt: skip


async def test_an_engine_that_vanishes_is_told_and_the_next_one_is_found(cardboard, cardboard_cockpit, sees, text_of):
    cardboard.tell_study("discard", None)
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "RUNNING", "0002")
        await cardboard.vanish()
        screen = await sees(app, "NO ENGINE", "gone without a word")
        assert "0002" in screen and "baseline" in screen
        await pilot.press("p")
        await sees(app, "no engine answers; nothing can be asked of it")
        cardboard.tell(Noted(text="from the other side"), Decided(number=2, verdict="crash", reason="lost"))
        await cardboard.start()
        await sees(app, "RUNNING", "1 crash")


async def test_an_engine_of_another_version_is_told(cardboard, cardboard_cockpit, sees):
    cardboard.speaks = False
    async with cardboard_cockpit() as (app, _):
        await sees(app, "NO ENGINE", "the engine is of another version")
        cardboard.tell_study()
        cardboard.speaks = True
        await sees(app, "RUNNING", "0000")


async def test_who_leaves_while_the_chart_is_made_just_leaves(cardboard, cardboard_cockpit, until, monkeypatch):
    cardboard.tell_study("keep")
    made = asyncio.Event()
    loaded = importlib.import_module("tui.panes.plot")

    async def in_time(*_):
        await made.wait()
        return loaded

    for turns in range(80):
        made.clear()
        async with cardboard_cockpit() as (app, _):
            chart = app._cockpit.query_one("ChartPane")
            with monkeypatch.context() as patched:
                patched.setattr("tui.panes.chart.asyncio.to_thread", in_time)
                await until(lambda chart=chart: chart._loading, "the chart is begun")
                await asyncio.sleep(0.1)
            made.set()
            if turns % 2:
                app.exit()
            for _turn in range(turns // 2):
                await asyncio.sleep(0)


async def test_without_an_engine_it_says_so(tmp_path, cardboard, cardboard_cockpit, sees):
    await cardboard.vanish()
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "NO ENGINE", "no engine answers on")
        await pilot.press("q")
        await pilot.pause()
    assert app.return_value == "detached; no engine runs"


async def test_reasons_stand_in_the_header(cardboard, cardboard_cockpit, sees):
    cardboard.tell_study()
    async with cardboard_cockpit() as (app, _):
        await sees(app, "RUNNING")
        cardboard.tell(ProposalStarted(number=1, base="b", agent="llm", spec=1))
        cardboard.tell(ProposalFailed(number=1, reason="no such block [/]"))
        await sees(app, "proposing 0001, attempt 2 · no such block [/]")
        cardboard.tell(Paused(by="engine", reason="5 proposals in a row came to nothing"))
        await sees(app, "PAUSED", "5 proposals in a row came to nothing")
        cardboard.tell(Warned(text="the journal's [/] last line was torn"))
        await sees(app, "the journal's [/] last line was torn")
        cardboard.tell(EngineStopped(reason="the disk is full"))
        await sees(app, "STOPPED", "the disk is full")


async def test_a_script_that_does_not_run_is_told(cardboard, cardboard_cockpit, sees):
    async with cardboard_cockpit() as (app, _):
        cardboard.tell_study(baseline=None)
        await sees(app, "no best yet: the baseline is being measured")
        cardboard.tell(Decided(number=0, verdict="crash", reason="out of memory"))
        cardboard.tell(Paused(by="engine", reason="it does not run; mend it"))
        screen = await sees(app, "PAUSED", "it does not run; mend it", "the unchanged script does not run", "crash")
        assert "no best yet" not in screen


async def test_the_cursor_stays_on_its_experiment_as_new_ones_come(cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study("discard", "discard")
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0002")
        pane = app.screen.query_one("ExperimentsPane")
        await until(lambda: pane.pointed == 2, "the cursor is on the newest")
        cardboard.tell(ProposalStarted(number=3, base="b", agent="llm", spec=1))
        await until(lambda: pane.pointed == 3, "the cursor goes with the newest")
        await pilot.press("down", "down")
        assert pane.pointed == 1
        cardboard.tell(Decided(number=3, verdict="reject", reason=""))
        cardboard.tell(ProposalStarted(number=4, base="b", agent="llm", spec=1))
        await sees(app, "0004")
        assert pane.pointed == 1


async def test_enter_opens_the_experiments_page(samples, cardboard, cardboard_cockpit, sees):
    cardboard.tell_study("discard", "crash")
    cardboard.files = {
        (1, "diff"): samples.diff,
        (1, "reasoning"): "because [/] it falls",
        (1, "log"): "val_bpb: 1.69\n",
    }
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0002")
        await pilot.press("down", "enter")
        await sees(
            app, "experiment 0001 · discard", "warm down later", "11 + MATRIX_LR = 0.04", "because [/] it falls",
            "val_bpb: 1.69", "refs/labtop/may12/0001", "1.690000",
        )  # fmt: skip
        await pilot.press("right")
        await sees(app, "experiment 0002 · crash", "out of memory", "it changes nothing")
        await pilot.press("escape")
        await sees(app, "5 experiments")


async def test_the_experiments_page_keeps_up_and_says_where_things_are(cardboard, cardboard_cockpit, sees):
    cardboard.tell_study(None)
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0001")
        for key in ("6", "5", "enter"):  # As a slow line brings them: all at once.
            app.post_message(Key(key, None))
        await sees(app, "experiment 0001 · training", "nothing was said")
        cardboard.tell(Decided(number=1, verdict="reject", reason="no [/] good", by="person"))
        cardboard.files[1, "reasoning"] = "because"
        await sees(app, "experiment 0001 · reject", "reject by the person: no [/] good", "because")
        await pilot.press("left")
        await sees(app, "experiment 0000 · keep")
        await cardboard.vanish()
        await pilot.press("right")
        await sees(
            app, "experiment 0001", "no engine answers; diff, reasoning and log are in .labtop/may12/experiments/0001/"
        )


async def test_scrolling_up_stops_following_until_the_end(cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study(None)
    cardboard.tell(LogLines(number=1, trial=1, lines=tuple(f"line {n}" for n in range(100))))
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "line 99")
        await pilot.press("6")
        await until(lambda: app.focused is app.screen.query_one("LogPane Lines"), "the log has the focus")
        await pilot.press("home")
        await sees(app, "line 0", "below, end follows")
        cardboard.tell(LogLines(number=1, trial=1, lines=("line 100",)))
        await until(lambda: "line 100" in app.screen.query_one("LogPane Lines").text, "line 100 came")
        await sees(app, "line 0")
        await pilot.press("end")
        await sees(app, "line 100")


async def test_a_flood_of_everything_is_taken_in_four_frames_a_second(
    samples, cardboard, cardboard_cockpit, sees, monkeypatch
):
    monkeypatch.setattr("tui.screens.cockpit.FRAMES", 4)
    cardboard.tell_study(None)
    drawn = []
    show = LogPane.show
    monkeypatch.setattr(LogPane, "show", lambda *args: (drawn.append(args), show(*args)))
    async with cardboard_cockpit() as (app, _):
        await sees(app, "0001")
        drawn.clear()
        begun = time.monotonic()
        for at in range(3000):
            cardboard.tell(
                LogLines(number=1, trial=1, lines=(f"line {at}", HOSTILE[:300])),
                AgentDelta(number=1, kind="text", text=f"word {at}\n"),
                samples.step(1, at),
            )
            if at % 100 == 0:
                await asyncio.sleep(0.02)
        cardboard.tell(LogLines(number=1, trial=1, lines=("the last line",)))
        await sees(app, "the last line", "word 2999")
        assert 1 <= len(drawn) <= 4 * (time.monotonic() - begun) + 5
        assert len(app.view.log) <= 5000 and len(app.view.words) <= 2000 and len(app.view.steps) <= 4000


async def test_what_was_fetched_and_then_streamed_stands_there_once(samples, cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study(None)
    steps = [samples.step(1, at) for at in range(50)]
    cardboard.files[1, "metrics"] = "\n".join(msgspec.json.encode(each).decode() for each in steps)
    cardboard.files[1, "log"] = "compiling\n\rstep 00048 (16.0%) | loss: 3.52\rstep 00049 (16.3%) | loss: 3.51"
    async with cardboard_cockpit() as (app, _):
        await until(lambda: len(app.view.steps) == 50, "the steps so far are fetched")
        assert "| loss" not in await sees(app, "compiling")
        cardboard.tell(*steps[40:], samples.step(1, 50))
        await until(lambda: app.view.step.step == 50, "the next one has come")
        assert [each.step for each in app.view.steps] == list(range(51))


async def test_an_idle_cockpit_draws_nothing(reading, cardboard, cardboard_cockpit, sees, until, monkeypatch):
    cardboard.tell_study("discard")
    cardboard.tell(Paused(), reading)
    quiet = []
    pump = Cockpit._draw
    monkeypatch.setattr(Cockpit, "_draw", lambda *args: (quiet.append(args), pump(*args)))
    async with cardboard_cockpit() as (app, _):
        await sees(app, "PAUSED", "cores")
        display = app._display
        monkeypatch.setattr(app, "_display", lambda *args: (quiet.clear(), display(*args)))
        await until(lambda: len(quiet) > 6, "six frames go by in which nothing is drawn")
        cardboard.tell(reading, LogLines(number=1, trial=1, lines=("awake",)))
        await sees(app, "awake")


async def test_a_slow_line_is_told_and_drawn_for_half_as_often(
    samples, cardboard, cardboard_cockpit, sees, until, monkeypatch
):
    asked, drawn, draw = [], [], Cockpit._draw
    monkeypatch.setattr(link, "EVERY", 0.0)
    monkeypatch.setattr(HeadlessDriver, "write", lambda _, text: asked.extend([text] * (text == link.QUESTION)))
    monkeypatch.setattr(Cockpit, "_draw", lambda screen: (drawn.append(screen._frame), draw(screen)))
    cardboard.tell_study(None)
    async with cardboard_cockpit() as (app, _):
        for at in range(link.LOOKED_AT):
            assert "slow line" not in await sees(app, "0001")
            cardboard.tell(samples.step(1, at))
            await until(lambda at=at: asked[at:] == [link.QUESTION], "it is asked, along with a frame, and once")
            await asyncio.sleep(link.SLOW)
            app.post_message(CursorPosition(0, 0))
        await sees(app, "slow line, ")
        drawn.clear()
        await until(lambda: len(drawn) == 3, "three frames are drawn")
        assert drawn[2] - drawn[0] == 4


def test_a_line_is_as_slow_as_its_quickest_answer_and_who_never_answers_is_asked_once():
    line = link.Link()
    for turn, took in enumerate((0.9, 0.4, 0.2, 0.1)):
        at = 100.0 * turn
        assert line.asks(at) and not line.asks(at + 99)
        assert (0 < line.owed(at + 0.01) <= link.OWED_AT_MOST) == (turn > 0)
        line.answered(at + took)
        assert line.owed(at + took) == 0 and line.slow == (turn == 2)
