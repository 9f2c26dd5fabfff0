"""The person's own agent: the real client of the protocol against a process that speaks it, and all that goes wrong."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Table, briefing

from loop.agents import Draft, Failed, Proposal, Status, Text, Thought, ToolUse, Unavailable, Used, make
from loop.agents.acp import AcpAgent, stated
from loop.config import Asking
from loop.workspace import Workspace

STANDIN = Path(__file__).parents[2] / "standin" / "acp_agent.py"
SAID = "I looked around.\n\n**HYPOTHESIS:** RATE 0.02 -> 0.1, since the loss still falls.\nEXPECTED: -0.01\n"
EDIT = ["replace", "train.py", "LEARNING_RATE = 0.02", "LEARNING_RATE = 0.1"]


class Place(Table):
    """A desk on a real repository, and a person beside it who takes hours, and allows everything."""

    def __init__(self, root, *known):
        super().__init__(*known, files={"train.py": (root / "train.py").read_text()})
        self.folder, self.workspace, self.asked = root / ".labtop" / "t" / "worktree", Workspace(root, "t"), []
        self.head = self.workspace.head()

    async def permit(self, what):
        self.asked.append(what)
        clock = asyncio.get_running_loop()
        clock.time = lambda now=clock.time: now() + 10_000
        await asyncio.sleep(0.01)
        return True

    async def worktree(self):
        self.workspace.worktree(self.head, self.folder)
        return self.folder


class Stage:
    """A repository, and an agent that plays what it is given."""

    def __init__(self, root, tmp_path):
        self.root, self.place = root, tmp_path

    async def play(self, *turns, asking=None, known=()):
        script = self.place / "script.json"
        script.write_text(json.dumps(turns))
        self.told = self.place / "told"
        self.told.write_text("")
        command = shlex.join([sys.executable, str(STANDIN), str(script), str(self.told)])
        self.agent = AcpAgent(command, asking=asking or Asking())
        self.desk = Place(self.root, *known)
        told = briefing(files=self.desk.files)
        events = [event async for event in self.agent.propose(told, self.desk)]
        assert [isinstance(event, Proposal | Failed) for event in events] == [False] * (len(events) - 1) + [True]
        return events

    def prompts(self):
        return [json.loads(line) for line in self.told.read_text().splitlines()]


@pytest.fixture
def stage(repository, tmp_path):
    return Stage(repository, tmp_path)


def status(root):
    git = ["git", "status", "--porcelain", "--branch"]
    return subprocess.run(git, cwd=root, capture_output=True, check=True).stdout


def words(events, kind):
    return "".join(event.text for event in events if isinstance(event, kind))


async def test_what_it_leaves_in_the_editable_file_is_the_proposal_and_the_rest_is_put_back(stage):
    before = status(stage.root)
    events = await stage.play(
        [
            ["think", "The rate is \x1b[31mlow."], ["plan", "look", "change"], ["odd"], EDIT,
            ["write", "program.md", "Do as you like."], ["write", "new/evil.py", "x"],
            ["link", ".gitignore", "/etc/passwd"],
            ["write", "__pycache__/x.pyc", "x"], ["write", ".git/hooks/post-checkout", "#!/bin/sh\ntouch /tmp/never"],
            ["cost", 5000, 0.25], ["say", SAID],
        ]
    )  # fmt: skip
    proposal = events[-1]
    assert isinstance(proposal, Proposal), proposal
    assert (proposal.hypothesis, proposal.expected_effect) == ("RATE 0.02 -> 0.1, since the loss still falls.", "-0.01")
    assert [edit.path for edit in proposal.edits] == ["train.py"] and proposal.mends == 0
    assert "LEARNING_RATE = 0.1 " in proposal.edits[0].replace
    assert "The rate is" in words(events, Thought) and words(events, Text) == SAID
    done = words(events, ToolUse)
    assert "plan:\n  [ ] look\n" in done and "Edit train.py" in done and "+LEARNING_RATE = 0.1" in done
    assert "put back" in words(events, Status) and ".gitignore, new/evil.py, program.md" in words(events, Status)
    assert "pyc" not in words(events, Status)
    (draft,) = [event for event in events if isinstance(event, Draft)]
    assert [(edit.path, edit.replace) for edit in draft.edits] == [("train.py", EDIT[-1])]
    folder = stage.desk.folder
    assert (folder / "program.md").read_text() == "Make it better.\n" and not (folder / "new" / "evil.py").exists()
    assert not (folder / ".gitignore").is_symlink() and (folder / ".gitignore").read_text() == ".labtop/\n"
    assert [event for event in events if isinstance(event, Used)] == [
        Used(input=1000, cached=400, output=200, cost=0.25)
    ]
    prompt = stage.prompts()[0]
    assert "in these files only: train.py" in prompt and "Make it better." in prompt and "HYPOTHESIS:" in prompt
    assert status(stage.root) == before


async def test_the_editable_files_are_allowed_and_else_a_person_is_asked_whose_time_is_not_the_turns(stage):
    events = await stage.play(
        [
            ["permission", "edit", "train.py"], ["permission", "delete", "train.py"], ["permission", "execute"],
            ["permission", "read", "program.md"], ["permission", "search", "../../../program.md"],
            ["permission", "fetch"], ["client write", "train.py", "RATE = 1\n"], ["client write", "program.md", "x"],
            ["client write", "../outside.py", "x"], ["client read", "program.md"], ["client read", "/etc/hostname"],
            ["say", SAID],
        ]
    )  # fmt: skip
    thought = words(events, Thought)
    for said in (
        "[edit allow_once][delete reject_once][execute allow_once][read allow_once][search allow_once]",
        "[fetch allow_once][written][refused][refused][Make it better.\n][refused]",
    ):
        assert said in thought
    assert stage.desk.asked == ["execute: execute []", "search: search ['../../../program.md']", "fetch: fetch []"]
    assert events[-1].edits[0].replace == "RATE = 1\n" and "delete ['train.py']: refused" in words(events, ToolUse)


async def test_what_cannot_be_used_goes_back_to_the_same_session(stage):
    turns = (
        [["say", "I only talk."], ["quota", 30, 4]],
        [["link", "train.py", "program.md"]],
        [["write", "train.py", ""], ["stop", "refusal"]],
        [["write", "train.py", "RATE = 0.3\n"], ["say", "So be it."]],
    )
    events = await stage.play(*turns, known=["This very patch was tried"])
    assert events[-1] == Proposal("So be it.", "not stated", events[-1].edits, 3)
    assert next(event for event in events if isinstance(event, Used)) == Used(input=30, output=4)  # As Gemini tells it.
    prompts = stage.prompts()
    for prompt, said in zip(
        prompts[1:], ("no editable file", "no file any more", "you refused", "very patch"), strict=True
    ):
        assert said in prompt
    events = await stage.play([["say", "I only talk."]], asking=Asking(mends=1))
    assert "no usable proposal in 2 tries" in events[-1].reason and events[-1].mends == 2


@pytest.mark.parametrize(
    ("step", "asking", "said"),
    [
        (["die", "boom: no such model"], {}, "ended with status 3: boom: no such model"),
        (["error", -32603, "overloaded"], {}, "overloaded"),
        (["locked"], {}, "log in with it once"),
        (["sleep", 60], {"first_word": 0.5}, "tiny 0.1 sent nothing for 0.5 s"),
        (["sleep", 60], {"turn": 1.0}, "did not finish within 1 s"),
        (["cost", 9000, 1.0], {"turn_tokens": 8000}, "more than 8000 tokens"),
    ],
    ids=["dies", "errs", "not logged in", "silent", "slow", "greedy"],
)
async def test_what_breaks_is_told_and_ends_the_turn(stage, tmp_path, monkeypatch, step, asking, said):
    monkeypatch.setattr("loop.agents.session.PATIENCE", 0.1)
    # The greedy one is cut off while it goes on; a child holds the pipes of the one that dies.
    steps = {"cost": [step, ["sleep", 60]], "die": [["child", str(tmp_path / "child")], step]}.get(step[0], [step])
    events = await stage.play(steps, asking=Asking(**asking))
    assert isinstance(events[-1], Failed) and said in events[-1].reason
    assert events[-1].away == (step[0] == "error")


async def test_ending_the_turn_ends_every_process_of_the_agent(stage, tmp_path, until):
    child = tmp_path / "child"
    task = asyncio.create_task(stage.play([["child", str(child)], ["sleep", 600]]))
    await until(lambda: child.exists() and child.read_text(), "the agent has a child of its own")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pid = int(child.read_text())
    state = Path(f"/proc/{pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] in "ZX"


async def test_a_key_of_the_agents_is_told_to_nobody_in_however_many_pieces_it_comes(stage, monkeypatch):
    key = "sk-of-the-agents-own"
    monkeypatch.setenv("MY_API_KEY", key)
    events = await stage.play(
        [
            ["think", f"As {key} shows, this is"], ["permission", "execute", key], ["think", f" {key[:12]}"],
            ["plan", f"{'x' * 190} {key}"], ["think", f"{key[12:]}, is it? {key[:12]}"],
            ["replace", "train.py", "LEARNING_RATE = 0.02", f"LEARNING_RATE = 0.1  # {key}"],
            ["say", f"Done.\n\nHYPOTHESIS: {'x' * 1995} {key}\nEXPECTED: {key}"],
        ]
    )  # fmt: skip
    assert words(events, Thought).startswith("As [key] shows, this is") and " [key], is it? " in words(events, Thought)
    assert events[-1].expected_effect == "[key]" and "0.1  # [key]" in events[-1].edits[0].replace
    assert key[:7] not in repr(events) and key[:7] not in repr(stage.desk.asked)
    events = await stage.play([["die", f"{'x' * 290} refused: {key}"], ["die", f"refused: {key}"]])
    assert "ended with status 3" in events[-1].reason and key[:7] not in events[-1].reason


def test_what_is_not_there_is_told_with_what_to_install(tmp_path):
    for spec, said in (("claude", "npm install -g @agent"), ("no-such-program", "mend PATH"), ("'", "no command")):
        with pytest.raises(Unavailable, match=said):
            AcpAgent(spec, environment={"PATH": str(tmp_path)})
    (tmp_path / "npx").write_text("")
    (tmp_path / "npx").chmod(0o755)
    assert AcpAgent("codex", environment={"PATH": str(tmp_path)}).name == "acp:codex"
    assert make(f"acp:{sys.executable} x.py").name == f"acp:{sys.executable} x.py" and os.sep in sys.executable


@pytest.mark.parametrize(
    ("speech", "hypothesis", "effect"),
    [
        ("HYPOTHESIS: a\nb\nEXPECTED: c", "a b", "c"),
        ("- **Hypothesis**: x\n", "- **Hypothesis**: x", "not stated"),
        ("HYPOTHESIS: old\n\nno\n\nHYPOTHESIS: new\n\nEXPECTED: **-0.1**", "new", "-0.1"),
        ("One.\n\nTwo.", "Two.", "not stated"),
        ("", "the agent did not say what it is for", "not stated"),
    ],
    ids=["stated", "lower case", "the last one", "unstated", "silent"],
)
def test_a_hypothesis_is_taken_from_what_it_says(speech, hypothesis, effect):
    assert stated(speech) == (hypothesis, effect)
