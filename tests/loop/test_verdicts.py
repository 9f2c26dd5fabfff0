"""Verdicts of a whole engine: seeds, confirmation, audits and drift, on real trials of a script whose luck is known."""

import asyncio
import random
import subprocess
from collections.abc import Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loop import commands
from loop import events as ev
from loop.agents import Edit, Proposal
from loop.journal import read
from loop.state import fold

SCRIPT = '''
import os, random, time
from pathlib import Path

GAIN = 0.0
LUCK = {}
"""What a seed adds, for some of them."""
SECONDS = 0.0

time.sleep(SECONDS)
seed = int(os.environ["LABTOP_SEED"])
machine = Path(MACHINE)
drift = float(machine.read_text()) if machine.exists() else 0.0
noise = random.Random(seed).gauss(0, 0.010) + random.Random(f"{seed} {GAIN}").gauss(0, 0.001) + LUCK.get(seed, 0.0)
value = 1.5 - GAIN + noise + drift
if "LABTOP_HANDOVER" in os.environ:
    Path(os.environ["LABTOP_HANDOVER"], "model").write_text(f"{value:.6f}")
else:
    print(f"---\\nval_bpb: {value:.6f}")
print("peak_vram_mb: 512.0\\nnum_steps: 5\\ntokens_per_second: 1000")
'''
AUDIT = """
import os, time
from pathlib import Path
time.sleep(float(Path("slow").read_text()) if Path("slow").exists() else 0)
value = float(Path(os.environ["LABTOP_HANDOVER"], "model").read_text())
print(f"---\\nval_bpb: {value:.6f}\\nholdout_bpb: {value + 0.02:.6f}\\nfinding: it was looked at\\naudit: green")
"""


class Scripted:
    """An agent that makes the given changes of the script, one after another, and then none."""

    name = "scripted"
    repairs = False

    def __init__(self, changes: Sequence[tuple[str, str]]) -> None:
        self.changes = list(changes)
        self.told: list[str] = []

    async def propose(self, briefing, desk):
        self.told = [experiment.reason for experiment in briefing.history]
        if not self.changes:
            await asyncio.sleep(3600)
        yield Proposal("a change", "something", (Edit("train.py", *self.changes.pop(0)),))


class Verdicts:
    def __init__(self, lab, place: Path) -> None:
        self.lab, self.root, self.machine = lab, lab.root, place / "machine"
        self.settings = ['command = "python train.py"', 'editable = ["train.py"]', "budget = 1", 'sandbox = "off"']
        self.write("train.py", SCRIPT.replace("MACHINE", repr(str(self.machine))))

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)

    def commit(self, settings: dict[str, object]) -> None:
        lines = [f"{name} = {value!r}".replace("True", "true") for name, value in settings.items()]
        self.write("labtop.toml", "\n".join([*self.settings, *lines]) + "\n")
        for words in (["add", "-A"], ["commit", "-qm", "a study", "--allow-empty"]):
            who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
            subprocess.run(["git", *who, *words], cwd=self.root, check=True)

    @asynccontextmanager
    async def engine(self, *changes: tuple[str, str], **settings: object):
        self.commit(settings)
        self.agent = Scripted(changes)
        async with self.lab.engine(len(changes), self.agent) as engine:
            yield engine
        assert fold(read(engine.study.journal)) == engine.state

    async def of(self, *changes: tuple[str, str], **settings: object):
        """The study's last state, when all changes are decided."""
        async with self.engine(*changes, **settings) as engine:
            await engine.task
        return engine.state


@pytest.fixture
def verdicts(lab, tmp_path: Path) -> Verdicts:
    return Verdicts(lab, tmp_path)


def seeds(experiment) -> list[int]:
    return [trial.seed for trial in experiment.trials]


async def test_a_real_gain_is_confirmed_on_the_incumbents_own_seeds(verdicts):
    state = await verdicts.of(("GAIN = 0.0", "GAIN = 0.02"), replicates=4)
    baseline, better = state.experiments
    assert seeds(baseline)[:4] == [1337, 1338, 1339, 1340] and baseline.verdict == "keep"
    assert better.verdict == "keep" and seeds(better)[:2] == [1337, 1338] and len(seeds(better)) > 1
    assert better.low < better.delta < better.high < 0 and better.delta == pytest.approx(-0.02, abs=0.004)
    assert better.value == pytest.approx(sum(better.values.values()) / len(better.trials))
    assert state.gain == pytest.approx(baseline.value - better.value)
    assert 0 < state.noise.paired < state.noise.sigma, "on one seed two scripts differ by less than on two"


async def test_a_lucky_first_seed_is_not_kept_and_what_is_clearly_worse_costs_one_trial(verdicts):
    state = await verdicts.of(
        ("LUCK = {}", "LUCK = {1337: -0.05}"), ("GAIN = 0.0", "GAIN = -0.1"), replicates=4, confirmations=6
    )
    _, lucky, worse = state.experiments
    assert lucky.verdict == "discard" and 1 < len(lucky.trials) <= 6
    assert worse.verdict == "discard" and len(worse.trials) == 1 and "worse" in worse.reason


async def test_the_plain_policies_run_one_trial_each_and_greedy_keeps_the_lucky_one(verdicts):
    state = await verdicts.of(("LUCK = {}", "LUCK = {1337: -0.05}"), policy="greedy")
    assert [len(experiment.trials) for experiment in state.experiments] == [1, 1]
    assert state.experiments[1].verdict == "keep"


async def test_the_incumbent_runs_the_seeds_that_it_lacks_and_is_worth_the_mean_of_all(verdicts):
    state = await verdicts.of(("GAIN = 0.0", "GAIN = 0.02"), replicates=4)
    baseline, small = state.experiments
    assert len(baseline.trials) > 4 and set(seeds(baseline)) >= set(seeds(small))
    assert baseline.value == pytest.approx(sum(baseline.values.values()) / len(baseline.trials))
    assert state.baseline.number == 0 and (small.verdict == "keep") == (state.incumbent == 1)


async def test_what_is_equal_but_shorter_may_be_kept(verdicts):
    shorter = ("SECONDS = 0.0\n\ntime.sleep(SECONDS)\n", "\n")
    state = await verdicts.of(shorter, simplify=True, replicates=3, confirmations=3)
    assert state.experiments[1].verdict == "keep" and "simpler" in state.experiments[1].reason


async def test_a_limit_of_the_settings(verdicts):
    with_limit = "at_most = { peak_vram_mb = 100 }"
    verdicts.settings.append(with_limit)
    state = await verdicts.of(("GAIN = 0.0", "GAIN = 0.5"), replicates=2)
    assert state.experiments[1].verdict == "discard" and "peak_vram_mb is 512, over 100" in state.experiments[1].reason


async def test_a_change_that_was_tried_is_refused_or_run_again_by_setting(verdicts, until):
    worse = ("GAIN = 0.0", "GAIN = -0.5")
    async with verdicts.engine(worse, ("GAIN = 0.0", "GAIN = -0.50"), replicates=2) as engine:
        await until(lambda: engine.state.failures, "the repeat is refused")
        assert "repeats experiment 0001 (discard" in engine.state.last_failure
    async with verdicts.engine(worse, replicates=2, repeats="rerun") as engine:
        await engine.task
    assert [e.verdict for e in engine.state.experiments].count("discard") == 2


async def test_a_machine_that_has_changed_is_told_and_only_what_was_measured_since_counts(verdicts, until):
    changes = [("GAIN = 0.0", f"GAIN = -0.{number}") for number in range(1, 7)]
    async with verdicts.engine(*changes, replicates=4, sentinel=2) as engine:
        await until(lambda: engine.state.baseline is not None, "a baseline")
        verdicts.machine.write_text("0.3")
        await engine.task
    state = engine.state
    events = [record.event for record in read(engine.study.journal)]
    rebased = [event for event in events if isinstance(event, ev.Rebased)]
    assert len(rebased) == 1 and rebased[0].number == 0 and rebased[0].trial == 5
    assert any("measured again; it is looked at once more" in warning for warning in state.warnings)
    assert state.best.value == pytest.approx(1.8, abs=0.03) and set(state.best.values) == set(seeds(state.best)[4:])
    after = [experiment for experiment in state.experiments if experiment.started > state.best.trials[5].ended]
    assert after and all(experiment.trials[0].seed in seeds(state.best)[4:] for experiment in after)


@pytest.fixture
def audited(verdicts: Verdicts) -> Verdicts:
    verdicts.write("audit.py", AUDIT)
    verdicts.settings += ['frozen = ["audit.py"]', 'audit = "python audit.py"', 'policy = "margin"']
    return verdicts


async def test_an_audits_number_is_the_score(audited):
    state = await audited.of(("GAIN = 0.0", "GAIN = 0.1"))
    baseline, better = state.experiments
    assert better.verdict == "keep" and better.delta == pytest.approx(-0.1, abs=0.01)
    assert (baseline.colour, better.colour) == ("green", "green")
    assert better.trial.holdout == pytest.approx(better.value + 0.02) and better.trial.claimed is None
    assert better.trial.findings == ("it was looked at",)
    folder = audited.root / ".labtop/t/experiments/0001"
    assert "audit: green" in (folder / "trial-1.audit.log").read_text()
    assert not [*folder.rglob("source")] and not [*folder.rglob("handover")] and not (folder / "trial-1/audit").exists()


CHEATS = {
    "a number of its own": ('print("peak', 'print("val_bpb: 0.9"); print("peak', "it printed 0.900000, and"),
    "a changed frozen file": ("time.sleep(", "open('audit.py', 'a').write('#'); time.sleep(", "audit.py was changed"),
    "hidden work": (
        "time.sleep(",
        "any(time.process_time() > 3 for _ in iter(int, 1)); time.sleep(",
        "of CPU time beside its budget of 1 s",
    ),
    "no model": (
        'os.environ["LABTOP_HANDOVER"], "model"',
        'os.environ["LABTOP_HANDOVER"], "modell"',
        "came to nothing",
    ),
}


@pytest.mark.parametrize("cheat", CHEATS)
async def test_a_red_score_is_never_kept_and_the_agent_is_told(audited, cheat, until):
    old, new, finding = CHEATS[cheat]
    async with audited.engine((old, new.replace("GAIN", "GAIN")), ("GAIN = 0.0", "GAIN = -0.1")) as engine:
        await until(lambda: len(engine.state.experiments) > 2, "the next proposal")
        cheated = engine.state.experiments[1]
        assert (cheated.verdict, cheated.colour) == ("discard", "red") and finding in cheated.reason
        assert cheated.value is None and engine.state.incumbent == 0
        reply = await engine.do(commands.Keep(number=1, why="I like it"))
        assert not reply.ok and "red" in reply.text
        await engine.task
    assert any(finding in told for told in audited.agent.told)


async def test_the_gain_must_show_on_the_holdout(audited):
    audited.write("audit.py", AUDIT.replace("{value + 0.02:.6f}", "{1.5:.6f}"))
    state = await audited.of(("GAIN = 0.0", "GAIN = 0.2"))
    assert state.experiments[1].colour == "red" and "shows on the holdout" in state.experiments[1].reason


async def test_a_script_that_cannot_be_audited_stops_the_study_at_its_baseline(audited, until):
    audited.write("audit.py", "raise SystemExit('no text')")
    async with audited.engine(("GAIN = 0.0", "GAIN = 0.1")) as engine:
        await until(lambda: engine.state.mode == "paused", "the engine asks for a person")
        assert "the audit came to nothing: exit status 1: no text" in engine.state.mode_reason


async def test_an_audit_that_an_engine_left_undone_is_done_by_the_next(audited, until):
    audited.write("slow", "60")
    async with audited.engine(("GAIN = 0.0", "GAIN = 0.1")) as engine:
        await until(lambda: engine.state.experiments and engine.state.experiments[0].stage == "trained", "a training")
        await until(lambda: engine.lane.running, "its audit runs")
    assert engine.state.experiments[0].colour is None and engine.state.experiments[0].verdict is None
    audited.write("slow", "0")
    log = audited.root / ".labtop/t/experiments/0000/trial-1.log"
    before = log.stat().st_mtime_ns
    # The study's files are those of its start, the slow one among them; so what is asked is that nothing trains twice.
    async with audited.engine(("GAIN = 0.0", "GAIN = 0.1")) as engine:
        await until(lambda: engine.lane.running, "the audit is begun anew")
        assert engine.state.measuring.number == 0 and engine.state.experiments[0].stage == "trained"
    assert log.stat().st_mtime_ns == before and len(engine.state.experiments[0].trials) == 1


async def test_a_rejection_ends_an_audit(audited, until):
    audited.write("slow", "2")
    async with audited.engine(
        ("time.sleep(SECONDS)", "time.sleep(SECONDS + 0)"), ("GAIN = 0.0", "GAIN = 0.1")
    ) as engine:
        await until(lambda: engine.state.baseline is not None, "a baseline")
        await until(lambda: len(engine.state.experiments) > 1 and engine.state.experiments[1].stage == "trained", "1")
        await until(lambda: engine.lane.running, "its audit runs")
        reply = await engine.do(commands.Reject(why="I know better"))
        await engine.task
    assert reply.ok and engine.state.experiments[1].verdict == "reject"
    assert engine.state.experiments[2].verdict == "keep"
    assert not [*(audited.root / ".labtop/t/experiments/0001").rglob("source")]


def test_luck_of_the_script_is_what_the_tests_take_it_for():
    luck = {seed: random.Random(seed).gauss(0, 0.010) for seed in range(1337, 1345)}
    assert max(luck.values()) - min(luck.values()) > 0.01
