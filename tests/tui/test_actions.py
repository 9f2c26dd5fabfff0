"""What a person can do beside the engine's own commands, and the gate, on a real engine."""

import base64
import json
import shlex
import sys
from pathlib import Path

from textual import events

from loop import commands
from loop import events as ev
from loop.agents import make
from loop.events import AgentDelta, DraftDiff, LogLines, ProposalStarted
from tui import actions, look, terminal
from tui.actions import ACTIONS
from tui.app import LabtopApp
from tui.attention import wanted
from tui.screens.cockpit import Cockpit
from tui.screens.program import merge

SECOND_HUNK = "@@ -50,2 +50,2 @@ def later():\n c = 3\n-d = 4\n+d = 5\n"


async def test_the_gate_holds_each_proposal_until_a_person_has_looked(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await sees(app, "best 1.")
        await pilot.press("b", *"crush", "enter")
        await sees(app, "says nothing that can be looked for")
        await pilot.press("backspace", "backspace", "backspace", *"ash", "enter")
        await until(lambda: engine.state.breakpoints == ("crash",), "the breakpoint is there")
        await sees(app, "▸ crash")
        await pilot.press("ctrl+d")
        await until(lambda: not engine.state.breakpoints, "and gone")
        await pilot.press("escape", "a")
        await until(lambda: engine.state.approving, "approve mode is on")
        held()
        await until(lambda: engine.state.awaiting, "a proposal waits")
        number = engine.state.awaiting.number
        await sees(app, f"! {number:04d} waits for your approval", "APPROVE MODE", "approve?", "a approve")
        await pilot.press("6", "enter")
        await sees(app, f"experiment {number:04d} · approve?", "e edit the patch", "+ ")
        await pilot.press("e")
        await sees(app, f"the patch of {number:04d}", "as the agent made it")
        editor = app.screen.query_one("TextArea")
        patch = editor.text
        editor.load_text("nonsense")
        await pilot.press("ctrl+s")
        await sees(app, f"the patch of {number:04d} stays as it was")
        assert editor.text == "nonsense" and not engine.state.awaiting.amended
        added = next(line for line in patch.splitlines() if line.startswith("+") and not line.startswith("+++"))
        editor.load_text(patch.replace(added, f"{added}\n+BY_HAND = 1"))
        await pilot.press("ctrl+s")
        await until(lambda: engine.state.awaiting and engine.state.awaiting.amended, "the patch is mine")
        await sees(app, "+ BY_HAND = 1", "changed by a person")
        await pilot.press("m", *"watch this", "enter")
        await until(lambda: engine.state.experiments[number].notes == ("watch this",), "the note is beside it")
        await pilot.press("a")
        await until(lambda: engine.state.experiments[number].verdict, "it is approved, trained and decided")
        assert "+BY_HAND = 1" in lab_file(lab, number)
        await pilot.press("escape", "A")
        await until(lambda: not engine.state.approving, "approve mode is off")


async def test_what_a_coding_agent_asks_for_is_put_to_the_person_in_approve_mode(lab, cockpit, until, sees, tmp_path):
    edit = ["replace", "train.py", "LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1"]
    asks = [["permission", what, "train.py"] for what in ("edit", "execute", "fetch")]
    script = tmp_path / "script.json"
    script.write_text(json.dumps([[*asks, edit, ["say", "HYPOTHESIS: faster\nEXPECTED: -0.05"]]]))
    standin = Path(__file__).parents[1] / "standin" / "acp_agent.py"
    (lab.root / "labtop.toml").open("a").write("approve = true\n")
    agent = make(f"acp:{shlex.join([sys.executable, str(standin), str(script), str(tmp_path / 'told')])}")
    async with lab.engine(agent=agent) as engine, cockpit() as (app, pilot):
        await sees(app, "a allow it   x refuse it   ! 0001 asks you to allow execute: execute ['train.py']")
        await pilot.press("a")
        await sees(app, "! 0001 asks you to allow fetch")
        late = await engine.do(commands.Permit(allow=True, what="execute: execute ['train.py']"))
        assert not late.ok and "something else by now: fetch" in late.text
        await pilot.press("x")
        await until(lambda: engine.state.awaiting, "the proposal waits")
        assert engine.state.awaiting.number == 1 and not engine.state.asked
        said = engine.study.reasoning(1).read_text()
        assert "[edit allow_once]" in said and "[execute allow_once]" in said and "[fetch reject_once]" in said
        assert "they do in approve mode" in (await engine.do(commands.Permit(allow=True))).text
        await pilot.press("1")
        await sees(app, "0001 is allowed execute", "0001 is not allowed fetch")


def lab_file(lab, number):
    return (lab.root / ".labtop" / lab.tag / "experiments" / f"{number:04d}" / "proposal.diff").read_text()


async def test_u_takes_a_verdict_back(lab, cockpit, until, sees):
    async with lab.engine(experiments=40) as engine, cockpit() as (app, pilot):
        await until(lambda: engine.state.incumbent, "something is kept")
        await pilot.press("p")
        await until(lambda: engine.holding, "it stands at a gate")
        while engine.state.experiments[-1].verdict != "keep":
            seq = engine.state.seq
            await engine.do(commands.Step())
            await until(lambda seq=seq: engine.state.seq > seq and engine.holding and not engine.state.steps, "a step")
        kept, before = engine.state.incumbent, engine.state.incumbent_before
        await sees(app, f"{kept:04d} keep: ")
        await pilot.press("u")
        await sees(app, f"undo the verdict on {kept:04d}", f"labtop/t goes back to {before:04d}")
        await pilot.press(*"not this", "ctrl+u")
        await until(lambda: engine.state.incumbent == before, "the branch is back")
        await sees(app, f"{before:04d} again")
        await pilot.press("u")
        await sees(app, "there is no verdict to undo")


async def test_the_table_is_sorted_filtered_and_followed(cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study("discard", "crash", "keep", "reject", "discard")
    async with cardboard_cockpit() as (app, pilot):
        pane = app.screen.query_one("ExperimentsPane")
        await sees(app, "0005", "▼ follow")
        await pilot.press("o")
        assert list(pane.target.rows) == [5, 4, 3, 1, 0, 2]
        await sees(app, "bpb▼", "by value")
        await pilot.press("O")
        assert list(pane.target.rows) == [0, 1, 3, 4, 5, 2]
        await pilot.press("slash", *"discard")
        await until(lambda: list(pane.target.rows) == [1, 5], "it filters as it is written")
        await pilot.press("1", "backspace", "enter")
        await sees(app, "/discard  2 of 6")
        cardboard.tell(ProposalStarted(number=6, base="b", agent="llm", spec=1))
        await sees(app, "2 of 7")
        await pilot.press("escape")
        await until(lambda: len(pane.target.rows) == 7, "escape ends the filter")
        assert pane.pointed == 1
        await pilot.click("Table", offset=(1, 0))
        await pilot.press("home")
        await sees(app, "▼ follow")
        await pilot.press("slash", *"crash", "escape")
        cardboard.tell(ProposalStarted(number=7, base="b", agent="llm", spec=1))
        await until(lambda: pane.pointed == 7, "the newest is followed as before the filter")


async def test_the_log_is_searched_and_the_diff_gone_through(samples, cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study(None)
    lines = tuple(f"line {n}, {'Odd' if n % 40 == 7 else 'plain'}" for n in range(200))
    cardboard.tell(LogLines(number=1, trial=1, lines=lines), DraftDiff(number=1, diff=samples.diff + SECOND_HUNK))
    async with cardboard_cockpit((80, 24)) as (app, pilot):
        await pilot.press("6")
        await sees(app, "line 199")
        await pilot.press("slash", *"odd", "enter")
        await sees(app, "/odd  5 of 5", "line 167, Odd")
        await pilot.press("N")
        await sees(app, "/odd  4 of 5", "line 127, Odd")
        await pilot.press("escape", "home")
        cardboard.tell(LogLines(number=1, trial=1, lines=("one", "two")))
        await sees(app, "▲ 2 new", "line 0, ")
        await pilot.press("2")
        await sees(app, "2 hunks, n/N", "··· def main():")
        await pilot.press("N")
        await sees(app, "that is the first hunk")
        await pilot.press("1")
        await sees(app, "warm down later")


async def test_wide_diffs_stand_side_by_side(samples, cardboard, cardboard_cockpit, sees):
    cardboard.tell_study(None)
    cardboard.tell(DraftDiff(number=1, diff=samples.diff))
    async with cardboard_cockpit((150, 30)) as (app, pilot):
        await pilot.press("2", "z")
        screen = await sees(app, "11 - MATRIX_LR = 0.02")
        (line,) = [line for line in screen.splitlines() if "- MATRIX_LR = 0.02" in line]
        assert "│  11 + MATRIX_LR = 0.04" in line


async def test_the_three_charts(samples, cardboard, cardboard_cockpit, sees):
    cardboard.tell_study("keep", "discard", None)
    cardboard.tell(*(samples.step(3, at) for at in range(40)))
    its = [
        ev.Step(number=1, trial=1, time=3.0 * at, step=at, loss=4.5 - at / 100, progress=at / 100) for at in range(100)
    ]
    cardboard.files[1, "metrics"] = "\n".join(json.dumps({"type": "Step", **_fields(step)}) for step in its)
    async with cardboard_cockpit((200, 60)) as (app, pilot):
        await sees(app, "● keep", "training 0003 · 1:57 of 5:00 · 0.500 ahead of best")
        await pilot.press("v")
        await sees(app, "loss · 0003 · 0.500 ahead at equal time, 0.500 at step", "grey: incumbent 0001")
        await pilot.press("v")
        await sees(app, "keeps and gain in bpb per version", "version", "in force", "0.0100")
        await pilot.press("v")
        await sees(app, "● keep")
        cardboard.tell(ev.AgentUsed(number=3, agent="llm", input=12_000, output=345, cost=0.042))
        await sees(app, "12.3 k tokens, cost 0.042")


def _fields(step):
    return {name: getattr(step, name) for name in ("number", "trial", "time", "step", "loss", "progress")}


async def test_every_action_is_in_the_palette_and_says_why_it_cannot_act(cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study("discard")
    async with cardboard_cockpit((120, 60)) as (app, pilot):
        await sees(app, "0001")
        for key in ("colon", "ctrl+p"):
            await pilot.press(key)
            await sees(app, "approve mode  (A)", "breakpoints  (b)", "not now: nothing is under way")
            await pilot.press("escape")
        await pilot.press("colon", *"zoom")
        await sees(app, "the pane in focus alone")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Cockpit) and app.screen.has_class("-zoom"), "it is zoomed")


def test_keys_footer_and_help_are_of_one_list():
    assert len({action.key for action in actions.ACTIONS}) == len(actions.ACTIONS)
    assert all(hasattr(Cockpit, f"_act_{action.name}") for action in actions.ACTIONS)


async def test_theme_layout_and_bell_are_remembered(cardboard, cardboard_cockpit, sees, tmp_path: Path):
    cardboard.tell_study("discard")
    path = tmp_path / "state" / "labtop" / "cockpit.json"
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0001")
        ink = look.INK
        await pilot.press("t", "v", "B", "2", "z", "q")
        await pilot.pause()
    assert ink != look.INK
    kept = json.loads(path.read_text())
    assert kept["theme"] == "labtop-light" and kept["chart"] == "run" and kept["zoomed"] and not kept["bell"]
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "2 diff")
        assert app.theme == "labtop-light" and app.screen.has_class("-zoom")
    path.write_text('{"version": 99, "colour": "mauve"}')
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "layout and theme begin anew", "0001")
        await pilot.press("z", "q")
        await pilot.pause()
        assert app.theme == "labtop"
    assert json.loads(path.read_text())["version"] == 99


async def test_y_copies_through_the_terminal(samples, cardboard, cardboard_cockpit, sees):
    cardboard.tell_study(None)
    cardboard.tell(DraftDiff(number=1, diff=samples.diff))
    async with cardboard_cockpit() as (app, pilot):
        await pilot.press("4")
        await sees(app, "11 + MATRIX_LR")
        await pilot.press("2", "y")
        await sees(app, f"copied the diff: {len(samples.diff)} characters")
        assert app.clipboard == samples.diff


def test_the_clipboard_is_reached_from_inside_tmux_and_screen():
    wanted = base64.b64encode(b"text").decode()
    assert terminal.clipboard("text", {}) == (f"\x1b]52;c;{wanted}\x07", True)
    sequence, _ = terminal.clipboard("text", {"TMUX": "1"})
    assert sequence == f"\x1b]52;c;{wanted}\x07\x1bPtmux;\x1b\x1b]52;c;{wanted}\x07\x1b\\"
    assert terminal.clipboard("ä" * 50_000, {"STY": "1"})[1] is False


async def test_a_person_who_looks_elsewhere_is_called_once_a_second(cardboard, cardboard_cockpit, sees, until):
    cardboard.tell_study("discard", None)
    async with cardboard_cockpit() as (app, _):
        await sees(app, "0002")
        rung = []
        app.bell = lambda: rung.append(app.view.state.seq)
        cardboard.tell(ev.Decided(number=2, verdict="keep", reason="", value=1.6))
        await sees(app, "best 1.6000 0002")
        assert rung == []
        app.app_focus = False
        for number in (3, 4):
            cardboard.tell(ProposalStarted(number=number, base="b", agent="llm", spec=1))
            cardboard.tell(ev.Decided(number=number, verdict="keep", reason="", value=1.6 - number / 100))
        await until(lambda: app.view.state.incumbent == 4, "both are told")
        assert len(rung) == 1
        last = app.view.state
        update = type("Update", (), {})
        for event, words in (
            (ev.Paused(by="engine", reason="the disk [/] is full"), "waits for you: the disk [/] is full"),
            (ev.Paused(by="person"), None),
            (ev.Decided(number=4, verdict="discard", reason=""), None),
        ):
            update.record = ev.Record(seq=1, time=0.0, event=event)
            assert wanted(update, last) == words


async def test_ascii_draws_the_same_screen_without_another_glyph(samples, cardboard, cardboard_cockpit, sees, text_of):
    cardboard.tell_study("keep", "crash", None)
    cardboard.tell(samples.reading, AgentDelta(number=3, kind="text", text="naïve → *better*"))
    async with cardboard_cockpit() as (app, _):
        drawn = await sees(app, "● keep", "│")
        app._filters.append(look.Ascii())
        lines = [strip.apply_filter(look.Ascii(), app.screen.background_colors[1]) for strip in _strips(app)]
        ascii_screen = "\n".join(strip.text for strip in lines)
        assert ascii_screen.isascii() and "@ keep" in ascii_screen
        assert [len(line) for line in ascii_screen.splitlines()] == [len(line) for line in drawn.splitlines()]


def _strips(app):
    return app.screen._compositor.render_strips()


def test_two_edits_of_one_text_are_merged_unless_they_meet():
    base = "one\n\ntwo\n\nthree\n\nfour\n"
    mine, theirs = base.replace("one", "ONE"), base.replace("four", "FOUR")
    assert merge(mine, base, theirs) == "ONE\n\ntwo\n\nthree\n\nFOUR\n"
    assert merge(mine, base, base.replace("one", "eins")) is None


async def test_an_edit_from_outside_is_merged_and_the_diff_to_the_running_version_shown(
    lab, cockpit, held, until, sees
):
    path: Path = lab.root / "program.md"
    path.write_text("Make it better.\n\nKeep it short.\n\nAnd fast.\n")
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await until(lambda: engine.state.spec == 1, "program.md is read")
        await sees(app, "best 1.")
        await pilot.press("e")
        await sees(app, "as it stands on disk")
        await pilot.press(*"Now. ")
        path.write_text("Make it better.\n\nKeep it short.\n\nAnd very fast.\n")
        await sees(app, "changed on disk meanwhile; saving merges it")
        await pilot.press("ctrl+s")
        await sees(app, "Now. Make it better.", "And very fast.", "merged with what was written on disk")
        await pilot.press("ctrl+s")
        await until(lambda: path.read_text().startswith("Now. Make it better.\n\nKeep"), "both are saved")
        assert "And very fast." in path.read_text()
        await pilot.press(*"x", "ctrl+d")
        await sees(app, "which the agent has", "xNow. ")
        await pilot.press("escape", "escape", "ctrl+d")


async def test_the_page_shows_each_trials_log_and_audit(cardboard, cardboard_cockpit, sees):
    cardboard.tell_study(None)
    cardboard.tell(ev.TrialFinished(number=1, trial=1, outcome="ok", value=1.6))
    cardboard.tell(ev.TrialStarted(number=1, trial=2, device="cuda", seed=2, budget=300.0))
    for trial in (1, 2):
        cardboard.files[1, "log", trial] = f"log of {trial}"
        cardboard.files[1, "audit", trial] = f"audit of {trial}"
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0001")
        await pilot.press("5", "enter")
        await sees(app, "end of the log of trial 2", "log of 2", "audit of 2")
        await pilot.press("t")
        await sees(app, "end of the log of trial 1", "log of 1", "audit of 1")


def test_commands_have_the_same_names():
    from tui.cli import STEERING, parser

    for name in STEERING:
        options = {
            "reject": ["--why", "x"],
            "keep": ["1", "--why", "x"],
            "undo": ["--why", "x"],
            "gate": ["on"],
            "permit": ["no"],
        }
        options |= {"amend": ["--patch", "x"], "break": ["crash"], "note": ["x", "--on", "3"]}
        assert parser().parse_args([name, *options.get(name, [])]).act
    assert commands.Approve(number=3) == commands.Approve(number=3)


async def test_what_is_typed_right_after_the_slash_is_a_filter_wherever_the_focus_was(
    cardboard, cardboard_cockpit, sees, until
):
    cardboard.tell_study("discard", "crash")
    async with cardboard_cockpit((80, 24)) as (app, pilot):
        await sees(app, "0002")
        await pilot.press("3")
        await sees(app, "val_bpb, lower is better")
        # As one piece from the line: nothing is settled between two keys.
        for key, character in (("slash", "/"), ("c", "c"), ("r", "r"), ("slash", "/"), ("x", "x"), ("1", "1")):
            app.post_message(events.Key(key, character))
        await sees(app, "cr/x1", "0 of 3")
        assert len(app.screen_stack) == 1 and not cardboard.commands
        await pilot.press("escape")
        await sees(app, "0001", "▼ follow")


async def test_a_notice_takes_the_place_of_the_one_before(
    cardboard, cardboard_cockpit, sees, text_of, until, monkeypatch
):
    monkeypatch.setattr(LabtopApp, "NOTIFICATION_TIMEOUT", 600.0)
    cardboard.tell_study(None)
    async with cardboard_cockpit((80, 24)) as (app, pilot):
        await sees(app, "0001")
        await pilot.press("z")
        await sees(app, "this terminal has room for one pane")
        await pilot.press("u")
        await sees(app, "everything is compared")
        await until(lambda: "room for one pane" not in text_of(app), "the first notice is gone")


async def test_a_dialog_lets_act_again_once_the_engine_is_back(cardboard, cardboard_cockpit, sees):
    cardboard.tell_study(None)
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "training 0001")
        await pilot.press("x")
        await sees(app, "reject 0001", "ctrl+r reject it")
        app.view.connected = False
        await sees(app, "no engine answers")
        await pilot.press(*"slow", "ctrl+r")
        assert "slow" in await sees(app, "reject 0001") and not cardboard.commands
        app.view.connected = True
        await sees(app, "slow", "ctrl+r reject it")
        await pilot.press("ctrl+r")
        await sees(app, "5 experiments")
        assert cardboard.commands == [commands.Reject(why="slow", number=1)]


async def test_a_page_cuts_no_word_off_at_any_width(cardboard, cardboard_cockpit, sees, text_of, until):
    cardboard.tell_study(None)
    async with cardboard_cockpit((80, 60)) as (app, pilot):
        await sees(app, "0001")
        await pilot.press("question_mark")
        await sees(app, "every action by name")
        said = " ".join(text_of(app).split())
        missing = [action.does for action in ACTIONS if action.name != "next_pane" and action.does not in said]
        assert not missing


async def test_the_line_of_what_waits_names_enter_only_where_it_opens_that(cardboard, cardboard_cockpit, sees, text_of):
    cardboard.tell(ev.GateSet(on=True))
    cardboard.tell_study("discard", None)
    cardboard.records.pop()  # It is proposed, and does not train.
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "0002 waits for your approval", "enter look at it")
        await pilot.press("end")
        assert "enter look at it" not in await sees(app, "0002 waits for your approval   a approve")
        await pilot.press("1")
        await sees(app, "enter look at it")
        await pilot.press("enter")
        await sees(app, "experiment 0002")
