"""The keys, pressed for real, on a real engine: what a person does and what they then see."""

from pathlib import Path

from loop import commands
from tui.screens import ask


async def waits_with_a_discarded_experiment(lab, engine, until):
    """Pauses the engine between two experiments, the first of which was discarded."""
    await until(lambda: any(e.verdict == "discard" for e in engine.state.experiments), "an experiment is discarded")
    await engine.do(commands.Pause())
    await until(lambda: engine.holding, "it stands at a gate")
    if engine.state.current is not None:
        await engine.do(commands.Reject(why="only in the way"))
    await until(lambda: engine.state.current is None and not engine.proposer.busy, "nothing is under way")
    return next(e for e in engine.state.experiments if e.verdict == "discard")


def demand_much(lab):
    """No change is good enough to be kept."""
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text() + "margin = 10.0\n")


async def training(engine, number, until):
    await until(
        lambda: (
            engine.state.current is not None
            and engine.state.current.number == number
            and engine.state.current.stage == "training"
            and engine.lane.running
        ),
        f"{number} trains",
        60,
    )


async def test_p_pauses_the_training_and_p_resumes_it(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "RUNNING", "training 0001 · ")
        await pilot.press("p")
        await sees(app, "PAUSED", "training 0001 waits", "p resume")
        assert engine.state.mode == "paused" and engine.state.current.trial.paused
        await pilot.press("p")
        await sees(app, "RUNNING", "p pause")
        assert engine.state.mode == "running" and not engine.state.current.trial.paused


async def test_s_passes_one_stage(lab, cockpit, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await sees(app, "best 1.")
        await pilot.press("p")
        await sees(app, "PAUSED")
        before = engine.state.seq
        await pilot.press("s")
        await sees(app, "STEP")
        await until(lambda: engine.state.seq > before + 1 and engine.state.steps == 0, "the step is used")
        assert engine.state.mode == "paused"


async def test_x_asks_why_and_rejects_only_on_its_own_key(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "training 0001 · ")
        await pilot.press("x")
        await sees(app, "reject 0001", "ctrl+r", "refs/labtop/t/0001")
        await pilot.press("ctrl+r")
        await sees(app, "a word on why first")
        await pilot.press(*"no [/] good", "enter")
        await sees(app, "Enter does nothing here")
        assert engine.state.experiments[1].verdict is None
        await pilot.press("ctrl+r")
        await until(lambda: engine.state.experiments[1].verdict == "reject", "0001 is rejected")
        assert engine.state.experiments[1].reason == "no [/] good"
        screen = await sees(app, "0001 reject: no [/] good")
        assert any("0001" in line and " reject " in line for line in screen.splitlines())


async def test_a_double_x_and_escape_reject_nothing(lab, cockpit, held, until, sees, monkeypatch):
    monkeypatch.setattr(ask, "DEAF", 60.0)  # On a busy machine one keystroke may take longer than a person's two.
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "training 0001 · ")
        await pilot.press("x", "x")
        await sees(app, "reject 0001")
        assert app.screen.written == ""
        await pilot.press("escape")
        await sees(app, "5 experiments")
        assert engine.state.experiments[1].verdict is None


async def test_a_rejection_written_too_long_says_so_and_does_not_hit_the_next_experiment(
    lab, cockpit, held, until, sees
):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "training 0001 · ")
        await pilot.press("x")
        await sees(app, "reject 0001")
        held()
        await until(lambda: engine.state.experiments[1].verdict is not None, "0001 is decided")
        await sees(app, "reject 0001", "0001 was decided meanwhile; nothing is rejected")
        await pilot.press(*"late", "ctrl+r")
        # Nor where the cockpit does not know it yet: the engine is told which one was meant.
        reply = await engine.do(commands.Reject(why="late", number=1))
        assert not reply.ok and "0001 was decided meanwhile" in reply.text
        await sees(app, "reject 0001", "late")
        await pilot.press("escape")
        await sees(app, "5 experiments")
        assert engine.state.counts()["reject"] == 0


async def test_an_undo_written_too_long_says_so_and_undoes_nothing(lab, cockpit, held, until, sees):
    demand_much(lab)
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await engine.do(commands.Reject(why="a slip"))
        await training(engine, 2, until)
        await engine.do(commands.Pause())
        await engine.do(commands.Reject(why="in the way"))
        await until(lambda: engine.state.current is None and not engine.proposer.busy, "nothing is under way")
        await sees(app, "0002 reject: in the way")
        await pilot.press("u")
        await sees(app, "undo the verdict on 0002")
        await engine.do(commands.Undo(why="another person did it"))
        await sees(app, "undo the verdict on 0002", "the verdict on 0002 is not the latest any more")
        await pilot.press(*"mine", "ctrl+u", "escape")
        await sees(app, "5 experiments")
        assert engine.state.experiments[1].verdict == "reject"


async def test_what_was_chosen_for_an_experiment_that_has_ended_stops_no_other(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "training 0001 · ")
        await pilot.press("Q", "down")
        await sees(app, "▸ now: what runs for 0001")
        await engine.do(commands.Reject(why="in the way"))
        await training(engine, 2, until)
        await sees(app, "▸ after 0002: it is measured to its end")
        await pilot.press("t", "enter")
        await until(lambda: engine._stopping, "the engine is told")
        assert engine._stopping == "after" and engine.state.current.number == 2


async def test_k_keeps_the_experiment_under_the_cursor(lab, cockpit, until, sees):
    demand_much(lab)
    async with lab.engine() as engine, cockpit() as (app, pilot):
        chosen = await waits_with_a_discarded_experiment(lab, engine, until)
        await sees(app, f"{chosen.number:04d}", "PAUSED")
        await pilot.press("5", "home")
        table = app.screen.query_one("Table")
        await until(lambda: table.has_focus, "the table has the focus")
        pane = app.screen.query_one("ExperimentsPane")
        for _ in range(len(engine.state.experiments)):
            if pane.pointed != chosen.number:
                await pilot.press("down")
        assert pane.pointed == chosen.number
        await pilot.press("k")
        await sees(app, f"keep {chosen.number:04d} by hand", "labtop/t moves from 0000")
        await pilot.press(*"simpler", "enter")
        assert engine.state.incumbent == 0
        await pilot.press("ctrl+k")
        await until(lambda: engine.state.incumbent == chosen.number, "it is the incumbent")
        await sees(app, f"best {engine.state.best.value:.4f} {chosen.number:04d}")
        assert engine.state.best.reason == "simpler" and engine.state.best.by == "person"


async def test_m_tells_the_agent(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await sees(app, "best 1.")
        await pilot.press("m")
        await sees(app, "message to the agent")
        await pilot.press(*"try depth 1", "enter")
        await until(lambda: engine.state.notes == ["try depth 1"], "the note is there")
        await sees(app, "noted")


async def test_e_edits_program_md(lab, cockpit, held, until, sees):
    path: Path = lab.root / "program.md"
    path.chmod(0o640)
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await until(lambda: engine.state.spec == 1, "program.md is read")
        await sees(app, "best 1.")
        await pilot.press("e")
        await sees(app, "Make it better.", "as it stands on disk")
        await pilot.press(*"Now. ", "ctrl+s")
        await until(lambda: path.read_text() == "Now. Make it better.\n", "it is saved")
        assert path.stat().st_mode & 0o777 == 0o640
        assert {p.name for p in lab.root.iterdir()} == {
            ".git", ".gitignore", ".labtop", "labtop.toml", "program.md", "train.py",
        }  # fmt: skip
        await until(lambda: engine.state.spec == 2, "the engine has read it")
        await pilot.press("escape")
        await sees(app, "program.md 2")


async def test_the_editor_does_not_overwrite_an_outside_edit(cardboard, cardboard_cockpit, tmp_path, until, sees):
    path: Path = tmp_path / "program.md"
    path.write_text("Make it better.\n")
    cardboard.tell_study(None)
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "best 1.")
        await pilot.press("e")
        await sees(app, "as it stands on disk")
        path.write_text("Someone else's.\n")
        await pilot.press(*"Mine. ", "ctrl+s")
        await sees(app, "changed on disk since you opened it")
        assert path.read_text() == "Someone else's.\n"
        await pilot.press("ctrl+o")
        await until(lambda: path.read_text() == "Mine. Make it better.\n", "mine is saved")
        path.write_text("Again.\n")
        await pilot.press("x", "ctrl+s")
        await sees(app, "changed on disk since you opened it")
        await pilot.press("ctrl+l")
        await sees(app, "Again.", "as it stands on disk")
        assert path.read_text() == "Again.\n"


async def test_leaving_the_editor_asks_where_something_is_unsaved(cardboard, cardboard_cockpit, tmp_path, sees):
    path: Path = tmp_path / "program.md"
    path.write_text("Make it better.\n")
    cardboard.tell_study(None)
    async with cardboard_cockpit() as (app, pilot):
        await sees(app, "best 1.")
        await pilot.press("e")
        await sees(app, "as it stands on disk")
        await pilot.press(*"One. ", "escape")
        await sees(app, "changes that are not saved")
        await pilot.press("escape")
        await sees(app, "One. Make it better.", "changed, not saved")
        await pilot.press("escape")
        await sees(app, "changes that are not saved")
        await pilot.press("ctrl+s")
        await sees(app, "5 experiments")
        assert path.read_text() == "One. Make it better.\n"
        await pilot.press("e")
        await sees(app, "as it stands on disk")
        await pilot.press(*"Two. ", "ctrl+q")
        await sees(app, "changes that are not saved")
        await pilot.press("ctrl+d")
        await sees(app, "5 experiments")
        assert path.read_text() == "One. Make it better.\n"


async def test_q_and_ctrl_c_detach_and_the_engine_goes_on(lab, cockpit, until, sees):
    async with lab.engine() as engine:
        for key in ("q", "ctrl+c"):
            async with cockpit() as (app, pilot):
                await sees(app, "best 1.")
                await pilot.press(key)
                await until(lambda app=app: app.return_value, "the app has ended")
            assert app.return_value == (
                f"detached; the engine goes on, pid {engine.state.engine_pid}; back to it: labtop attach --tag t"
            )
            assert not engine.task.done() and engine.state.mode == "running"
            tried = engine.state.tried
            await until(lambda tried=tried: engine.state.tried > tried, "it does go on")


async def test_a_second_view_shows_what_the_first_one_did(lab, cockpit, held, until, sees):
    async with lab.engine() as engine:
        async with cockpit() as (app, pilot):
            await training(engine, 1, until)
            await sees(app, "training 0001 · ", "0.02 -> ")
            await pilot.press("p")
            await sees(app, "PAUSED")
        async with cockpit() as (app, _):
            screen = await sees(app, "PAUSED", "training 0001 waits", "best 1.", "0.02 -> ", "+1 -1")
            assert "never moved before" in screen


async def test_capital_q_stops_the_engine_only_with_the_tag(lab, cockpit, held, until, sees):
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await training(engine, 1, until)
        await sees(app, "training 0001 · ")
        await pilot.press("Q")
        await sees(app, "stop the engine", "▸ after 0001")
        await pilot.press("enter")
        await sees(app, "that is not the tag, which is t")
        await pilot.press("down")
        await sees(app, "▸ now")
        assert engine._stopping is None
        await pilot.press("t", "enter")
        await until(lambda: engine.task.done(), "the engine has ended")
        await sees(app, "STOPPED", "stopped by a person")
        await pilot.press("p")
        await sees(app, "the engine has ended; nothing can be asked of it")
        await pilot.press("q")
        await until(lambda: app.return_value, "the app has ended")
    assert app.return_value == "detached; the engine has ended: stopped by a person"


async def test_a_study_that_ends_by_itself_says_why_and_keeps_its_results(lab, cockpit, sees):
    async with cockpit() as (app, _):
        async with lab.engine(experiments=2) as engine:
            await sees(app, "best 1.")
            await engine.task
            await sees(app, "STOPPED", "2 experiments done", "2 tried")
        await sees(app, "STOPPED", "0002", "baseline")


async def test_what_a_hostile_script_prints_stays_text(lab, cockpit, edit_trainer, until, sees):
    hostile = r'print("[/] [bold]\x1b[2J\x1b]0;owned\x07 " + "long " * 5000 + "\u202e", flush=True)'
    edit_trainer("    loss = 1.5", f"    {hostile}\n    loss = 1.5")
    async with lab.engine(experiments=1) as engine, cockpit() as (app, pilot):
        await engine.task
        await sees(app, "[/] [bold]", "STOPPED")
        await pilot.press("6", "right", "home", "left", "end")
        await pilot.press("5")
        await sees(app, "0001")


async def test_what_confirms_a_gain_is_told_and_can_be_paused(lab, cockpit, edit_trainer, held, until, sees):
    path = lab.root / "labtop.toml"
    path.write_text(path.read_text().replace('"margin"', '"confirm"') + "replicates = 3\n")
    luck = 'random.Random(os.environ["LABTOP_SEED"]).gauss(0, 0.001)'
    luck += ' + random.Random(f"{LEARNING_RATE} {os.environ}").gauss(0, 0.0002)'
    edit_trainer(
        "    for step in range(STEPS):", f"    import random\n    loss += {luck}\n    for step in range(STEPS):"
    )
    # Only what is to confirm something is held.
    edit_trainer("while step and changed", 'while step and changed and os.environ["LABTOP_SEED"] != "1337"')
    async with lab.engine() as engine, cockpit() as (app, pilot):
        await sees(app, "best 1.", "×3", "confirming", "seed 1338 · ")
        number = engine.state.current.number
        await sees(app, f"confirming {number:04d}, seed 1338 · ", "band: ±2σ of one trial, 0.00")
        await pilot.press("p")
        await sees(app, "PAUSED", f"confirming {number:04d}, seed 1338 waits", "p resume")
        assert engine.state.current.trial.paused
        await pilot.press("p")
        await sees(app, "RUNNING", "p pause")
        held()
        await until(lambda: engine.state.experiments[number].verdict == "keep", "it is confirmed")
        await sees(app, f"{number:04d} keep: ", "σ)")
