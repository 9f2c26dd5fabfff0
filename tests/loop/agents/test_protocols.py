"""Both protocols alike: the real SDK against the stand-in, which answers in whichever it is asked by."""

import asyncio
import json
import logging
from collections import Counter

import pytest
from desk import Table, briefing
from models import KEY, Model, answer, refuse

from loop.agents import Draft, Failed, Proposal, Status, Text, Thought, ToolUse, Unavailable, Used, openai
from loop.agents.openai import OpenAIAgent
from loop.config import Asking
from loop.patch import Edit

EDIT = Edit("train.py", "RATE = 0.1\n", "RATE = 0.2\n")
IDEA = {
    "hypothesis": "RATE 0.1 -> 0.2: the loss still falls",
    "expected_effect": "-0.01",
    "edits": [{"path": EDIT.path, "search": EDIT.search, "replace": EDIT.replace}],
}
WANTED = Proposal(IDEA["hypothesis"], IDEA["expected_effect"], (EDIT,))
PROPOSING = answer(think="Let me see.", say="So:", calls=[("propose", IDEA)], usage=(1000, 400, 200))
BOTH = pytest.mark.parametrize("protocol", ["chat", "responses"])


def agent_of(model, protocol, environment=(), **asking):
    known = {"backoff": 0.001, "longest_wait": 0.002, "attempts": 3, "protocol": protocol, **asking}
    environment = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": KEY, **dict(environment)}
    return OpenAIAgent("fake", asking=Asking(**known), environment=environment)


async def turn(agent, *known, **fields):
    told = briefing(number=2, context={"prepare.py": "x = 1\n" * 900}, **fields)
    events = [event async for event in agent.propose(told, Table(*known))]
    assert [isinstance(event, Proposal | Failed) for event in events] == [False] * (len(events) - 1) + [True]
    assert KEY not in repr(events)
    return events


async def play(protocol, *answers, known=(), **asking):
    async with Model(*answers) as model:
        return await turn(agent_of(model, protocol, **asking), *known), model


def words(events, kind):
    return "".join(event.text for event in events if isinstance(event, kind))


@BOTH
async def test_a_proposal_is_told_as_it_is_written_and_holds_no_key(protocol, monkeypatch):
    monkeypatch.setattr(openai, "DRAFT_EVERY", 0.0)
    edit = {"path": "train.py", "search": "RATE = 0.1\n", "replace": f"RATE = 0.2\n# {KEY}\n"}
    wanted = {
        "hypothesis": f"a larger rate {KEY}!",
        "expected_effect": "-0.01",
        "edits": [edit, {**edit, "path": "b.py"}],
    }
    events, _ = await play(protocol, answer(calls=[("propose", wanted)]))
    drafts = [event for event in events if isinstance(event, Draft)]
    assert any("a larger rate [key]!".startswith(draft.hypothesis) and not draft.edits for draft in drafts)
    assert not any(KEY[:2] in draft.hypothesis for draft in drafts)
    growing = next(draft for draft in drafts if draft.growing)
    assert growing.hypothesis == "a larger rate [key]!" and edit["replace"].startswith(growing.edits[0].replace)
    assert any(len(draft.edits) == 1 and not draft.growing for draft in drafts) and len(drafts[-1].edits) == 2


@BOTH
async def test_a_turn_streams_and_is_counted(protocol):
    prices = {"input": 1.0, "cached": 0.1, "output": 10.0}
    events, model = await play(protocol, PROPOSING, prices=prices)
    assert events[-1] == WANTED and words(events, Thought) == "Let me see." and words(events, Text) == "So:"
    used = next(event for event in events if isinstance(event, Used))
    assert (used.input, used.cached, used.output) == (1000, 400, 200)
    assert used.cost == pytest.approx((600 * 1.0 + 400 * 0.1 + 200 * 10.0) / 1e6)
    assert model.paths == [f"/v1/{'chat/completions' if protocol == 'chat' else 'responses'}"]
    assert model.headers[0]["authorization"] == f"bearer {KEY}"
    if protocol == "responses":
        assert model.bodies[0]["store"] is False and model.bodies[0]["reasoning"] == {"summary": "auto"}


@BOTH
async def test_it_may_read_before_it_proposes_and_only_so_often(protocol):
    looks = [("read_experiment", {"number": 1}), ("read_file", {"path": "prepare.py", "first": 890})]
    wrong = [("read_experiment", {"number": 77}), ("read_file", {"path": "/etc/passwd"}), ("shell", {"do": "rm"})]
    events, model = await play(
        protocol, answer(think="Hm.", calls=looks), answer(calls=wrong), PROPOSING, PROPOSING, looks=5
    )
    assert events[-1] == WANTED
    assert "read_experiment 1\nread_file prepare.py\n" in words(events, ToolUse)
    shown = json.dumps(model.bodies[2])
    for said in ("it was no use", "  890 x = 1", "there is no experiment 77", "no file /etc/passwd", "no tool shell"):
        assert said in shown
    tools = [[tool.get("name") or tool["function"]["name"] for tool in body["tools"]] for body in model.bodies]
    assert tools == [["propose", "read_file", "read_experiment"]] * 2 + [["propose"]]
    # What it thought goes back with its calls: some servers insist on it.
    back = model.bodies[1]["messages" if protocol == "chat" else "input"]
    assert any(item.get("reasoning") == "Hm." or item.get("encrypted_content") == "sealed" for item in back)


def shortest(protocol):
    """The least that a server can say to propose, in two pieces and an end."""
    edits = [{"path": "train.py", "search": "", "replace": "x = 1"}]
    text = json.dumps({"hypothesis": "x", "expected_effect": "y", "edits": edits}, separators=(",", ":"))
    if protocol == "chat":
        deltas = [{"tool_calls": [{"index": 0, "function": {"arguments": text[at : at + 60]}}]} for at in (0, 60)]
        sent = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        sent.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    else:
        growing = {"type": "response.function_call_arguments.delta", "output_index": 0}
        sent = [{**growing, "delta": text[at : at + 60]} for at in (0, 60)]
        sent.append({"type": "response.completed", "response": {}})
    return "".join(f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in sent).encode()


@BOTH
async def test_a_stream_cut_after_any_byte_is_no_proposal_is_told_and_is_asked_again(protocol):
    whole = shortest(protocol)
    asked = Counter()

    async def say(exchange):
        first = int(exchange.path.split("/")[2])
        at = first + asked[first]
        asked[first] += 1
        await exchange.start()
        await exchange.raw(whole[:at] if at < min(first + 8, len(whole)) else whole)
        await exchange.end()

    async def cuts(first):
        """Eight in a row, each after one more byte, and then the whole of it."""
        agent = agent_of(model, protocol, {"OPENAI_BASE_URL": f"{model.url}/{first}"}, looks=0, attempts=9)
        return first, await turn(agent)

    async with Model(say) as model:
        turns = await asyncio.gather(*map(cuts, range(0, len(whole), 8)))
    for first, events in turns:
        assert events[-1] == Proposal("x", "y", (Edit("train.py", "", "x = 1"),)), first
        told = [event.text for event in events if isinstance(event, Status)]
        # A cut that were taken for an answer would have ended the turn, and nobody would have asked again.
        assert len(told) == asked[first] - 1 == min(8, len(whole) - first), (first, told)
        assert all("was cut off; again in" in said for said in told), (first, told)


async def failed(exchange):
    event = {"type": "response.failed", "sequence_number": 0}
    error = {"code": "server_error", "message": f"\x1b[31mout of order, {KEY}"}
    response = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "status": "failed"}
    await exchange.start()
    await exchange.send({**event, "response": {**response, "error": error}})
    await exchange.end()


async def erred(exchange):
    await exchange.start()
    await exchange.raw('event: error\ndata: {"type": "error", "code": null, "message": "no room", "param": null}\n\n')
    await exchange.end()


@pytest.mark.parametrize(("broken", "said"), [(failed, "out of order, [key]"), (erred, "no room")])
async def test_a_response_that_fails_without_an_exception_is_asked_again(broken, said):
    events, model = await play("responses", broken, PROPOSING)
    assert events[-1] == WANTED and said in words(events, Status) and len(model.bodies) == 2
    events, _ = await play("responses", broken)
    assert events[-1].away and events[-1].wait == 60


@BOTH
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"say": ""}, "no proposal in it"),
        ({"say": "I cannot help with that.", "finish": "content_filter"}, "refusal"),
        ({"calls": [("propose", '{"hypothesis": "x", "edits": [{')]}, "Expecting"),
        ({"calls": [("propose", json.dumps(IDEA)[:40])], "finish": "length"}, "say less"),
        ({"calls": [("propose", {**IDEA, "edits": [{"path": "train.py", "search": "= 0.1", "replace": ""}]})]}, "1, 2"),
        ({"calls": [("propose", {**IDEA, "edits": [{"path": "a/../../x", "search": "", "replace": ""}]})]}, "editable"),
        (
            {"calls": [("propose", {**IDEA, "edits": [{"path": "prepare.py", "search": "", "replace": ""}]})]},
            "editable",
        ),
        ({"calls": [("read_file", "{nonsense")]}, "no proposal"),
    ],
    ids=["empty", "refusal", "malformed", "cut", "twice", "climbs out", "frozen", "odd look"],
)
async def test_what_cannot_be_used_goes_back_and_is_mended(protocol, bad, said):
    events, model = await play(protocol, answer(**bad), PROPOSING)
    assert events[-1] == Proposal(WANTED.hypothesis, WANTED.expected_effect, WANTED.edits, mends=1)
    assert said in json.dumps(model.bodies[1]) and "goes back" in words(events, Status)


@BOTH
async def test_a_whole_file_is_taken_and_three_mends_are_enough(protocol):
    whole = {**IDEA, "edits": [{"path": "train.py", "search": "", "replace": "RATE = 0.2\n"}]}
    missed = {**IDEA, "edits": [{"path": "train.py", "search": "RATE = 0.11\n", "replace": "RATE = 0.2\n"}]}
    events, model = await play(protocol, *[answer(calls=[("propose", missed)])] * 3, answer(calls=[("propose", whole)]))
    assert events[-1].edits == (Edit("train.py", "", "RATE = 0.2\n"),) and events[-1].mends == 3
    assert "nearest text there is:\\nRATE = 0.1" in json.dumps(model.bodies[1])
    events, model = await play(protocol, answer(calls=[("propose", missed)]))
    assert events[-1].mends == 4 and "no usable proposal in 4 replies" in events[-1].reason and len(model.bodies) == 4


@BOTH
async def test_what_is_known_goes_back_once_and_counts_as_no_mend(protocol):
    events, model = await play(protocol, PROPOSING, known=["it was 0001, and no use"])
    assert events[-1] == WANTED and "it was 0001" in json.dumps(model.bodies[1]) and len(model.bodies) == 2


async def test_the_protocol_is_found_out_and_kept():
    for speaks, paths in (
        (("responses",), ["chat/completions", "responses", "responses"]),
        (("chat",), ["chat/completions"] * 2),
    ):
        async with Model(PROPOSING, speaks=speaks) as model:
            agent = agent_of(model, "auto")
            assert (await turn(agent))[-1] == WANTED and (await turn(agent))[-1] == WANTED
            assert model.paths == [f"/v1/{path}" for path in paths]
    async with Model(PROPOSING, speaks=()) as model:
        events = await turn(agent_of(model, "auto"))
        assert "OPENAI_BASE_URL" in events[-1].reason and not events[-1].away and len(model.paths) == 2
    async with Model(refuse(404, "the model `fake` does not exist")) as model:
        events = await turn(agent_of(model, "auto"))
        assert "name another model" in events[-1].reason and len(model.paths) == 1


@BOTH
async def test_an_option_that_a_server_does_not_take_is_left_out(protocol):
    option = "stream_options" if protocol == "chat" else "reasoning"
    events, model = await play(protocol, refuse(400, f"unknown field {option}"), PROPOSING)
    assert events[-1] == WANTED and option in model.bodies[0] and option not in model.bodies[1]


@BOTH
async def test_a_turn_that_costs_too_much_is_ended(protocol):
    looking = answer(calls=[("read_experiment", {"number": 1})], usage=(900, 0, 200))
    events, model = await play(protocol, looking, turn_tokens=1000)
    assert "over 1000" in events[-1].reason and len(model.bodies) == 1


@BOTH
async def test_2_mb_of_thinking_are_cut_off_and_control_sequences_carried_as_words(protocol):
    events, _ = await play(protocol, answer(think="and " * 500_000, calls=[("propose", IDEA)]))
    assert "more than 1048576 characters" in events[-1].reason
    events, _ = await play(protocol, answer(think="\x1b]0;x\x07\u202e\ud800", calls=[("propose", IDEA)]))
    assert events[-1] == WANTED
    words(events, Thought).encode()


@BOTH
async def test_a_probe_says_how_it_answers_or_what_is_wrong(protocol, caplog):
    caplog.set_level(logging.DEBUG)
    async with Model(PROPOSING) as model:
        said = " ".join(await agent_of(model, protocol).probe())
    assert "calls tools" in said and "shows its reasoning" in said and "its cost is not known" in said
    async with Model(answer(say="ready")) as model:
        said = " ".join(await agent_of(model, protocol).probe())
    assert "calls no tools" in said and "shows no reasoning" in said and "no cap" in said
    async with Model(refuse(401, f"key {KEY} is expired")) as model:
        with pytest.raises(Unavailable, match=r"401: key \[key\] is expired; set OPENAI_API_KEY") as raised:
            await agent_of(model, protocol).probe()
    assert KEY not in repr(raised.getrepr()) and KEY not in caplog.text
