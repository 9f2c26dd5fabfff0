"""The diff as a person sees it, with the lines to look at twice."""

import asyncio
import json

import pytest
from models import Model, call, chunk, pieces

from loop.agents.openai import OpenAIAgent
from loop.config import Asking
from loop.events import Caution, DraftDiff, ProposalStarted, Proposed
from loop.patch import unified_diff
from tui import diffs, look
from tui.panes.lines import Lines

OLD = {"train.py": "import math\n\nLR = 0.1\nclock = Clock()\nprint(LR)\n"}
NEW = {"train.py": "import math\nimport time\n\nLR = 0.2\nclock = Clock()\nprint('[/] val_bpb: 0.1 \x1b[2J')\n"}
DIFF = unified_diff(OLD, NEW)
CAUTIONS = (
    Caution("train.py", 2, "clock", "import time"),
    Caution("train.py", 6, "score", "print('[/] val_bpb: 0.1 \x1b[2J')"),
)


def marked(diff, cautions):
    return [text.plain for text in diffs.drawn(diff, cautions).texts if text.plain.startswith("!")]


def test_a_line_to_look_at_twice_has_a_sign_before_its_number():
    assert marked(DIFF, CAUTIONS) == ["!    2 + import time", "!    6 + print('[/] val_bpb: 0.1 ')"]
    (first, *_) = [text for text in diffs.drawn(DIFF, CAUTIONS).texts if text.plain.startswith("!")]
    assert str(first.spans[0].style) == f"bold {look.AMBER}"
    assert [text.plain[2:] for text in diffs.drawn(DIFF, CAUTIONS).texts] == [
        text.plain for text in diffs.drawn(DIFF).texts
    ]


def test_a_removed_line_of_the_same_number_is_not_the_one_and_what_stands_there_now_is():
    old = {"a.py": "a = 1\ntorch.manual_seed(SEED)\nb = 2\n"}
    diff = unified_diff(old, {"a.py": "a = 1\nb = 2\n"})
    assert marked(diff, [Caution("a.py", 2, "seed", "- torch.manual_seed(SEED)")]) == ["!    2   b = 2"]


def test_every_file_has_its_own_lines():
    diff = unified_diff({}, {"a.py": "x = 1\n", "b.py": "open(1)\n"})
    assert marked(diff, [Caution("b.py", 1, "files", "open(1)")]) == ["!    1 + open(1)"]


def test_what_parts_lines_only_elsewhere_shifts_no_number():
    diff = unified_diff({}, {"a.py": "x = '\u2028\x85'\ny = 1  # \r\nopen(1)\n"})
    assert marked(diff, [Caution("a.py", 3, "files", "open(1)")]) == ["!    3 + open(1)"]
    assert diffs.extent(diff) == (("a.py",), 3, 0)


@pytest.mark.parametrize(
    ("cautions", "said"),
    [
        (CAUTIONS, "2 lines to look at twice: clock 2 · score 6"),
        (CAUTIONS[:1], "1 line to look at twice: clock 2"),
        ([Caution("a", 3, "seed", ""), Caution("a", 3, "files", "")], "1 line to look at twice: seed 3 · files 3"),
        ([Caution("a", at, "seed", "") for at in range(5)], "5 lines to look at twice: seed 0, 1, 2 …"),
        ([Caution("a", 3, "seed", ""), Caution("b", 3, "seed", "")], "2 lines to look at twice: seed a:3, b:3"),
    ],
)
def test_where_to_look_is_told_by_kind(cautions, said):
    assert diffs.cautioned(cautions) == said


@pytest.mark.parametrize(
    ("size", "no_color"), [((120, 40), False), ((80, 24), True)], ids=("120x40", "80x24 no colour")
)
async def test_the_pane_says_where_to_look_and_marks_it(
    cardboard, cardboard_cockpit, sees, monkeypatch, size, no_color
):
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    cardboard.tell_study()
    cardboard.tell(ProposalStarted(number=1, base="b", agent="llm", spec=1), DraftDiff(number=1, diff=DIFF))
    async with cardboard_cockpit(size) as (app, pilot):
        await sees(app, "RUNNING")
        await pilot.press("2")
        assert "look at twice" not in await sees(app, "train.py  +3 -2", "   2 + import time")
        cardboard.tell(Proposed(number=1, commit="c", hypothesis="h", cautions=CAUTIONS))
        await sees(app, "! 2 lines to look at twice: clock 2 · score 6", "!    2 + import time", "     4 + LR = 0.2")
        await pilot.press("end")
        await sees(app, "!    6 + print('[/] val_bpb: 0.1 ')")


async def test_who_reads_the_diff_stays_where_he_is_when_the_marks_come(cardboard, cardboard_cockpit, sees):
    new = {"train.py": OLD["train.py"] + "".join(f"x{at} = {at}\n" for at in range(100))}
    cardboard.tell_study()
    cardboard.tell(
        ProposalStarted(number=1, base="b", agent="llm", spec=1),
        DraftDiff(number=1, diff=unified_diff(OLD, new)),
    )
    async with cardboard_cockpit((80, 24)) as (app, pilot):
        await sees(app, "RUNNING")
        await pilot.press("2")
        await sees(app, "x0 = 0")
        await pilot.press("end")
        await sees(app, " 101 + x95 = 95")
        found = (Caution("train.py", 101, "clock", "x95 = 95"),)
        cardboard.tell(Proposed(number=1, commit="c", hypothesis="h", cautions=found))
        assert "x0 = 0" not in await sees(app, "1 line to look at twice", "!  101 + x95 = 95")
        assert "x0 = 0" in app.screen.query_one("DiffPane Lines", Lines).text


async def test_the_diff_and_what_it_is_for_are_there_while_the_agent_writes_them(lab, cockpit, sees, monkeypatch):
    first = {"path": "train.py", "search": "LEARNING_RATE = 0.02", "replace": "LEARNING_RATE = 0.1"}
    second = {"path": "train.py", "search": "WIDTH = 64", "replace": "WIDTH = 128"}
    proposal = {"hypothesis": "a larger rate [/]", "expected_effect": "-0.05", "edits": [first, second]}
    written, go_on = json.dumps(proposal), asyncio.Event()
    cut = written.index('"search": "WIDTH')

    async def slowly(exchange):
        call_of = chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "propose"}}])
        await exchange.start()
        await exchange.send(call_of, *(call(piece) for piece in pieces(written[:cut])))
        await asyncio.wait_for(go_on.wait(), 300)
        await exchange.send(call(written[cut:]), chunk("tool_calls"))
        await exchange.end()

    monkeypatch.setattr("loop.agents.openai.DRAFT_EVERY", 0.0)
    monkeypatch.setenv("NO_PROXY", "*")
    async with Model(slowly) as model:
        agent = OpenAIAgent("fake", asking=Asking(protocol="chat"), environment={"OPENAI_BASE_URL": model.url})
        async with lab.engine(experiments=1, agent=agent) as engine, cockpit((200, 60)) as (app, _):
            screen = await sees(
                app, "proposing 0001", "diff · 0001 · being written", "train.py  +1 -1", "a larger rate [/]",
                "expected  -0.05", " - LEARNING_RATE = 0.02", " + LEARNING_RATE = 0.1",
            )  # fmt: skip
            assert "WIDTH = 128" not in screen and engine.state.experiments[1].hypothesis == ""
            go_on.set()
            assert "being written" not in await sees(app, "train.py  +2 -2", " + WIDTH = 128", "WIDTH  64 -> 128")
