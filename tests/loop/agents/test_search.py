"""The offline agent, driven by a bowl in place of a trainer: reproducible, legal, never the same twice."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from loop import guard
from loop.agents import Failed, Proposal, make, search
from loop.agents.search import SearchAgent
from loop.briefing import Briefing
from loop.constants import constant_changes, find_constants, set_constants
from loop.events import Change
from loop.patch import apply_edits
from loop.state import Experiment

SCRIPT = '''"""Says DEPTH = 4
in its docstring too, where `DEPTH = 4` is no setting."""
RATE = 0.02  # 0.001..0.5 (log) — é
WIDTH = {"cpu": 64, "cuda": 512}["cpu"]  # one of: 32, 64, 128, 256, 512
DEPTH = 4
MAX_DEPTH = 4
WARM = True
KIND = "cosine"  # one of: "cosine", "linear"
NAME = "a run"  # not searched


def main():
    DEPTH_TOO = 4
'''
RANGES = {"RATE": (0.001, 0.5), "DEPTH": (2, 6), "MAX_DEPTH": (2, 6)}
OPTIONS = {"WIDTH": (32, 64, 128, 256, 512), "WARM": (False, True), "KIND": ("cosine", "linear")}


def values(files: Mapping[str, str], device: str = "cpu") -> dict[str, object]:
    return {c.name: c.value for text in files.values() for c in find_constants(text, device)}


def loss(at: Mapping[str, object]) -> float:
    away = abs(math.log(at["RATE"] / 0.1)) + abs(at["DEPTH"] - 2) / 4 + 40 / at["WIDTH"]
    return 1 + 0.1 * away + 0.01 * (at["KIND"] == "cosine")


class Bowl:
    """The engine's part: it applies, measures and judges what is proposed, and briefs anew."""

    def __init__(self, text: str = SCRIPT, *, direction: str = "minimize", device: str = "cpu", score=loss) -> None:
        self.direction, self.device, self.score = direction, device, score
        self.files = self.baseline = {"train.py": text}
        self.history: list[Experiment] = []
        self.incumbent: Experiment | None = None
        self.prints: list[str] = []
        self.decide(self.files)

    def briefing(self, *feedback: str) -> Briefing:
        return Briefing(
            number=len(self.history), metric="val_bpb", direction=self.direction, budget=1.0, device=self.device,
            program="", incumbent=self.incumbent, files=self.files, context={}, baseline_files=self.baseline,
            history=tuple(self.history), feedback=feedback,
        )  # fmt: skip

    def decide(self, files: Mapping[str, str], changes: tuple[Change, ...] = (), *, verdict: str | None = None) -> None:
        value = self.score(values(files, self.device)) if verdict != "crash" else None
        best = self.incumbent.value if self.incumbent else None
        if verdict is None:
            better = best is None or (value < best if self.direction == "minimize" else value > best)
            verdict = "keep" if better else "discard"
        number = len(self.history)
        experiment = Experiment(
            number=number, stage="decided", base=self.incumbent.commit if self.incumbent else "base", agent="search",
            spec=1, started=0.0, commit=f"commit {number}", changes=changes, verdict=verdict, value=value,
            delta=None if best is None or value is None else value - best,
        )  # fmt: skip
        self.history.append(experiment)
        self.prints.append(guard.fingerprint(dict(files)))
        if verdict == "keep":
            self.incumbent, self.files = experiment, dict(files)

    def put(self, changed: Mapping[str, str], *, verdict: str | None = None) -> None:
        """An experiment that another agent or a person made."""
        after = set_constants(self.files["train.py"], changed, self.device)
        changes = constant_changes(self.files["train.py"], after, self.device)
        self.decide({"train.py": after}, changes, verdict=verdict)

    def run(self, proposal: Proposal, *, verdict: str | None = None) -> dict[str, str]:
        after = {**self.files, **apply_edits(self.files, proposal.edits)}
        changes = constant_changes(self.files["train.py"], after["train.py"], self.device)
        assert changes
        self.decide(after, changes, verdict=verdict)
        return after


async def ask(agent: SearchAgent, briefing: Briefing) -> Proposal | Failed:
    *words, end = [event async for event in agent.propose(briefing)]
    assert isinstance(end, Proposal | Failed) and not any(isinstance(word, Proposal | Failed) for word in words)
    return end


async def night(bowl: Bowl, turns: int, *, seed: int = 3) -> list[Proposal]:
    agent, proposals = SearchAgent(seed=seed), []
    for turn in range(turns):
        proposal = await ask(agent, bowl.briefing())
        assert isinstance(proposal, Proposal), proposal
        bowl.run(proposal, verdict="crash" if turn % 9 == 8 else None)
        proposals.append(proposal)
    return proposals


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
async def test_it_finds_something_better_in_either_direction(direction):
    bowl = Bowl(direction=direction, score=loss if direction == "minimize" else lambda at: 5 - loss(at))
    await night(bowl, 25)
    gain = bowl.incumbent.value - bowl.history[0].value
    assert (-gain if direction == "minimize" else gain) > 0.05


async def test_every_move_is_new_small_and_legal():
    bowl = Bowl()
    agent = SearchAgent(seed=5)
    for turn in range(40):
        before = values(bowl.files)
        proposal = await ask(agent, bowl.briefing())
        after = bowl.run(proposal, verdict="crash" if turn % 2 else None)
        assert bowl.prints[-1] not in bowl.prints[:-1], proposal.hypothesis
        moved = {name: value for name, value in values(after).items() if value != before[name]}
        assert 1 <= len(moved) <= 2 and "NAME" not in moved
        for name, value in moved.items():
            assert name in proposal.hypothesis
            if name in OPTIONS:
                assert value in OPTIONS[name]
            else:
                low, high = RANGES[name]
                assert low <= value <= high and type(value) is type(before[name])


async def test_the_same_history_and_seed_give_the_same_proposal_to_an_agent_that_starts_anew():
    bowl, agent = Bowl(), SearchAgent(seed=11)
    for _ in range(20):
        proposal = await ask(agent, bowl.briefing())
        assert await ask(SearchAgent(seed=11), bowl.briefing()) == proposal
        bowl.run(proposal)
    others = {str((await ask(SearchAgent(seed=seed), bowl.briefing())).edits) for seed in range(8)}
    assert len(others) > 1, "the seed makes a difference"


async def test_every_constant_is_moved_once_before_any_model_is_asked(monkeypatch):
    monkeypatch.setattr(SearchAgent, "_ask", lambda *_: pytest.fail("TPE was asked"))
    bowl = Bowl(score=lambda at: 1.0)
    await night(bowl, 6)
    moved = [change.name for experiment in bowl.history for change in experiment.changes]
    assert sorted(moved) == ["DEPTH", "KIND", "MAX_DEPTH", "RATE", "WARM", "WIDTH"]


async def test_what_was_kept_is_followed_the_same_way():
    bowl = Bowl()
    bowl.put({"RATE": "0.04"}, verdict="keep")
    proposal = await ask(SearchAgent(), bowl.briefing())
    assert "one more of the same" in proposal.hypothesis
    assert values(apply_edits(bowl.files, proposal.edits)) == values(bowl.files) | {"RATE": 0.08}


@pytest.mark.parametrize(("kept", "then"), [("128", 256), ("32", None), ("512", None)])
async def test_options_are_followed_upwards_and_not_past_their_end(kept, then):
    bowl = Bowl()
    bowl.put({"WIDTH": kept}, verdict="keep")
    proposal = await ask(SearchAgent(), bowl.briefing())
    assert ("one more of the same" in proposal.hypothesis) == (then is not None)
    if then:
        assert values(apply_edits(bowl.files, proposal.edits)) == values(bowl.files) | {"WIDTH": then}


async def test_one_more_of_the_same_leaves_out_what_stands_at_its_limit():
    bowl = Bowl()
    bowl.put({"RATE": "0.04", "DEPTH": "6"}, verdict="keep")
    proposal = await ask(SearchAgent(), bowl.briefing())
    assert isinstance(proposal, Proposal) and "DEPTH" not in proposal.hypothesis
    assert values(apply_edits(bowl.files, proposal.edits)) == values(bowl.files) | {"RATE": 0.08}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WIDTH", "100"),
        ("RATE", "7.0"),
        ("RATE", "-0.5"),
        ("DEPTH", "4.5"),
        ("DEPTH", "9"),
        ("KIND", "'x'"),
        ("WARM", "3"),
    ],
)
async def test_it_goes_on_from_where_another_agent_left_the_space(name, value):
    bowl = Bowl(score=lambda at: 1.0)
    bowl.put({name: value}, verdict="keep")
    agent = SearchAgent()
    for _ in range(25):
        proposal = await ask(agent, bowl.briefing())
        assert isinstance(proposal, Proposal), proposal
        bowl.run(proposal)
    assert len(set(bowl.prints)) == len(bowl.prints)


async def test_it_goes_on_where_another_agent_renamed_a_constant_away():
    bowl = Bowl(score=lambda at: 1.0)
    bowl.decide({"train.py": SCRIPT.replace("MAX_DEPTH", "GREATEST_DEPTH").replace("RATE =", "rate =")}, verdict="keep")
    proposals = await night(bowl, 15)
    assert not any("MAX_DEPTH" in p.hypothesis or "RATE" in p.hypothesis for p in proposals)


async def test_two_constants_at_once_are_two_edits_that_both_stand(monkeypatch):
    monkeypatch.setattr(search, "TWO_AT_ONCE", 1.0)
    monkeypatch.setattr(search, "FIRST_MOVES", ())
    bowl, twos = Bowl(score=lambda at: 1.0), 0
    for proposal in await night(bowl, 20):
        if len(proposal.edits) == 2:
            twos += 1
            text = bowl.baseline["train.py"]
            for edit in proposal.edits:
                assert text.count(edit.search) == 1
                text = text.replace(edit.search, edit.replace)
            changes = constant_changes(SCRIPT, text)
            assert len(changes) == 2 and all(change.name in proposal.hypothesis for change in changes)
    assert twos >= 5


async def test_only_the_devices_own_entry_moves():
    bowl = Bowl(device="cuda:0", score=lambda at: 1.0)
    seen = set()
    for proposal in await night(bowl, 14):
        changed = apply_edits(bowl.baseline, proposal.edits)["train.py"]
        assert values({"f": changed}, "cpu")["WIDTH"] == 64
        seen.add(values({"f": changed}, "cuda")["WIDTH"])
    assert len(seen) > 1


async def test_a_refused_proposal_is_not_made_again():
    bowl = Bowl()
    first = await ask(SearchAgent(), bowl.briefing())
    again = await ask(SearchAgent(), bowl.briefing("this repeats experiment 0004"))
    assert isinstance(again, Proposal) and again.edits != first.edits


@pytest.mark.parametrize("text", ["", "x = 1\n", "def f():\n    RATE = 1\n", 'NAME = "a run"\n', "RATE = (\n"])
async def test_where_there_is_nothing_to_search_it_says_what_it_wants(text):
    bowl = Bowl(text, score=lambda at: 1.0)
    failed = await ask(SearchAgent(), bowl.briefing())
    assert isinstance(failed, Failed) and "NAME = literal" in failed.reason


async def test_a_space_that_is_used_up_says_what_would_help():
    bowl, agent = Bowl("WIDTH = 1  # one of: 1, 2, 3\n", score=lambda at: 1.0), SearchAgent()
    for _ in range(2):
        bowl.run(await ask(agent, bowl.briefing()))
    failed = await ask(agent, bowl.briefing())
    assert isinstance(failed, Failed) and "widen the ranges" in failed.reason


@pytest.mark.parametrize("line", ["N = 4  # 0.5..6.5 (log)", "N = 1", "N = 100_000", "N = 3  # 5..9", "N = 8  # 8..1"])
async def test_whole_numbers_stay_whole_and_in_their_range(line):
    (dimension,) = search.dimensions({"f.py": f"{line}\n"}).values()
    bowl, agent = Bowl(f"{line}\n", score=lambda at: 1.0), SearchAgent()
    for _ in range(6):
        proposal = await ask(agent, bowl.briefing())
        if isinstance(proposal, Failed):
            assert "widen the ranges" in proposal.reason
            break
        value = values(bowl.run(proposal))["N"]
        assert type(value) is int and dimension.low <= value <= dimension.high


async def test_make_gives_it_by_its_name():
    agent = make("search", seed=11)
    bowl = Bowl()
    assert agent.name == "search"
    assert await ask(agent, bowl.briefing()) == await ask(SearchAgent(seed=11), bowl.briefing())
