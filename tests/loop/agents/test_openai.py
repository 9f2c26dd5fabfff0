"""The OpenAI back-end: the real SDK against a real server on loopback that plays a model, and all that breaks."""

import asyncio
import json
import logging
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from desk import FILES, Table, briefing
from models import KEY, Model, call, chunk, proposing, refuse, saying, stream

from loop.agents import Draft, Failed, Proposal, Status, Text, Thought, ToolUse, Unavailable, UnknownAgent, Used, make
from loop.agents.openai import OpenAIAgent
from loop.config import Asking, load
from loop.engine import Engine
from loop.journal import Journal
from loop.patch import Edit
from loop.study import Study
from loop.workspace import Workspace

PROPOSAL = {
    "hypothesis": "RATE 0.1 -> 0.2: the loss still falls",
    "expected_effect": "-0.01",
    "edits": [{"path": "train.py", "search": "RATE = 0.1\n", "replace": "RATE = 0.2\n"}],
}
WANTED = Proposal(PROPOSAL["hypothesis"], "-0.01", (Edit("train.py", "RATE = 0.1\n", "RATE = 0.2\n"),))
MENDED = Proposal(WANTED.hypothesis, WANTED.expected_effect, WANTED.edits, mends=1)
QUICK = Asking(backoff=0.01, attempts=3, protocol="chat")


def agent_of(model, asking=QUICK, **environment):
    environment = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": KEY, **environment}
    return OpenAIAgent("fake", asking=asking, environment=environment)


async def turn(agent, told=None, desk=None):
    """The events of one turn, but for what it used. What holds for every turn is asserted here."""
    events = [event async for event in agent.propose(told or briefing(), desk or Table())]
    events = [event for event in events if not isinstance(event, Used | Draft)]
    assert [isinstance(event, Proposal | Failed) for event in events] == [False] * (len(events) - 1) + [True]
    assert KEY not in repr(events)
    return events


async def play(*answers, asking=QUICK, told=None, desk=None):
    async with Model(*answers) as model:
        return await turn(agent_of(model, asking), told, desk), model


def words(events, kind):
    return "".join(event.text for event in events if isinstance(event, kind))


async def test_a_tool_call_in_fragments_is_a_proposal():
    events, model = await play(stream(chunk(content="Let me see."), *proposing(PROPOSAL)))
    assert events[-1] == WANTED
    assert words(events, Text) == "Let me see." and events[-2] == ToolUse("propose\n")
    body = model.bodies[0]
    assert body["stream"] and body["model"] == "fake" and body["tools"][0]["function"]["name"] == "propose"
    assert model.headers[0]["authorization"] == f"bearer {KEY}"
    assert FILES["train.py"] in body["messages"][1]["content"]


@pytest.mark.parametrize(
    "fence", ["```json\n{}\n```", "```\n{}\n```\nThat is it.", "```json\n{}\n```\n```python\nRATE = 0.2\n```", "{}"]
)
async def test_a_model_without_tools_may_answer_with_a_block_of_json(fence):
    said = "```python\nRATE = 0.2\n```\n\n" * (fence != "{}") + fence.replace("{}", json.dumps(PROPOSAL, indent=1))
    events, _ = await play(stream(*saying(said)))
    assert events[-1] == WANTED and words(events, Text) == said


async def test_a_bare_line_feed_within_a_json_string_is_understood():
    events, _ = await play(stream(*saying("```json\n" + json.dumps(PROPOSAL).replace("\\n", "\n") + "\n```")))
    assert events[-1] == WANTED


async def test_a_server_that_takes_no_tools_is_asked_without_and_remembered():
    refusal = refuse(400, "registry.example/fake:1b does not support tools")
    async with Model(refusal, stream(*saying(json.dumps(PROPOSAL)))) as model:
        agent = agent_of(model)
        assert (await turn(agent))[-1] == WANTED and (await turn(agent))[-1] == WANTED
    assert ["tools" in body for body in model.bodies] == [True, False, False]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
async def test_reasoning_is_a_thought_under_either_name(name):
    other = {"reasoning": "reasoning_content", "reasoning_content": "reasoning"}[name]
    thoughts = [chunk(**{name: piece, other: None}) for piece in ("The rate ", "is low.")]
    events, _ = await play(stream(chunk(role="assistant", content=""), *thoughts, *proposing(PROPOSAL)))
    assert words(events, Thought) == "The rate is low." and words(events, Text) == "" and events[-1] == WANTED


async def test_think_tags_at_the_start_of_the_content_are_a_thought_and_nowhere_else():
    said = "\n<think>Low < rate.</think>\nSo I say <think> to it."
    events, _ = await play(stream(*(chunk(content=letter) for letter in said), *proposing(PROPOSAL)))
    assert words(events, Thought) == "Low < rate."
    assert words(events, Text) == "\n\nSo I say <think> to it." and events[-1] == WANTED


async def test_an_edit_that_does_not_match_goes_back_with_what_is_there():
    wrong = {**PROPOSAL, "edits": [{"path": "train.py", "search": "RATE = 0.11\n", "replace": "RATE = 0.2\n"}]}
    events, model = await play(stream(*proposing(wrong)), stream(*proposing(PROPOSAL)))
    assert events[-1] == MENDED and "goes back" in words(events, Status)
    said, complaint = (message["content"] for message in model.bodies[1]["messages"][2:])
    assert "RATE = 0.11" in said and "not in train.py" in complaint and "RATE = 0.1" in complaint


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ('{"hypothesis": "x", "edits": [{', "Expecting"),
        ({"hypothesis": "x", "edits": []}, "missing required field"),
        ({**PROPOSAL, "edits": "RATE = 0.2"}, "Expected `array`"),
        ({**PROPOSAL, "edits": []}, "change nothing"),
        ({**PROPOSAL, "hypothesis": "x" * 5000}, "characters"),
        ({**PROPOSAL, "hypothesis": " "}, "characters"),
        ({**PROPOSAL, "edits": [{"path": "../prepare.py", "search": "", "replace": ""}]}, "not an editable file"),
        ({**PROPOSAL, "edits": [{"path": "train.py", "search": " = 0.1\n", "replace": ""}]}, "at lines 1, 2"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "digit"),
    ],
)
async def test_what_is_malformed_goes_back_and_is_mended(bad, complaint):
    events, model = await play(stream(*proposing(bad)), stream(*proposing(PROPOSAL)))
    assert events[-1] == MENDED
    assert complaint in model.bodies[1]["messages"][3]["content"]


async def test_several_calls_go_back_rather_than_lose_edits():
    text = json.dumps(PROPOSAL)
    events, model = await play(stream(call(text, 0), call(text, 1), chunk("tool_calls")), stream(*proposing(PROPOSAL)))
    assert events[-1] == MENDED and "not 2" in model.bodies[1]["messages"][3]["content"]


async def test_a_reply_cut_at_the_length_limit_is_told_so():
    half = json.dumps(PROPOSAL)[:40]
    events, model = await play(stream(call(half), chunk("length")), stream(*proposing(PROPOSAL)))
    assert events[-1] == MENDED and "say less" in model.bodies[1]["messages"][3]["content"]


async def test_a_model_that_never_proposes_fails_after_its_repairs():
    events, model = await play(stream(*saying("I would rather talk.")))
    assert isinstance(events[-1], Failed) and "no usable proposal in 4 replies" in events[-1].reason
    assert len(model.bodies) == 1 + QUICK.mends


async def test_429_is_waited_out_as_long_as_the_server_asks():
    began = time.monotonic()
    events, model = await play(refuse(429, "slow down", Retry_After="0.3"), stream(*proposing(PROPOSAL)))
    assert events[-1] == WANTED and len(model.bodies) == 2 and time.monotonic() - began >= 0.3
    assert "429: slow down; again in" in words(events, Status)


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("600", 600, 600),
        ("1e9", 900, 900),
        pytest.param(formatdate(time.time() + 86400, usegmt=True), 900, 900, id="a date"),
    ],
)
async def test_a_longer_wait_ends_the_turn_and_is_capped(asked, least, most):
    events, model = await play(refuse(429, "slow down", Retry_After=asked))
    assert isinstance(events[-1], Failed) and least <= events[-1].wait <= most and len(model.bodies) == 1


@pytest.mark.parametrize("asked", ["soon", "-5", "nan", "inf", "Nonsense GMT"])
async def test_an_unusable_retry_after_is_ignored(asked):
    events, model = await play(refuse(503, Retry_After=asked), stream(*proposing(PROPOSAL)))
    assert events[-1] == WANTED and len(model.bodies) == 2


async def test_500_for_ever_is_given_up_and_asked_again_soon():
    events, model = await play(refuse(500, "it broke"))
    assert events[-1].wait == 60 and "500: it broke" in events[-1].reason
    assert len(model.bodies) == 3 and len(events) == 3 and "(2 of 3)" in events[1].text


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (401, None, "set OPENAI_API_KEY"),
        (403, None, "set OPENAI_API_KEY"),
        (404, None, "OPENAI_BASE_URL"),
        (429, "insufficient_quota", "add credit"),
        (402, None, "add credit"),
        (400, None, "400"),
    ],
)
async def test_what_a_person_must_mend_is_not_retried_and_never_tells_the_key(status, code, advice, caplog):
    caplog.set_level(logging.DEBUG)
    for padding in ("", "x" * 280):
        events, model = await play(refuse(status, f"{padding} key {KEY} is wrong", code))
        assert len(model.bodies) == 1 and events[-1].wait >= 600 and advice in events[-1].reason
        assert KEY[:12] not in repr(events)
    assert KEY not in caplog.text


async def cut(exchange):
    await exchange.start()
    await exchange.send(chunk(reasoning="Half"), call(json.dumps(PROPOSAL)[:30]))


async def cut_cleanly(exchange):
    await cut(exchange)
    await exchange.end()


async def reset(exchange):
    await cut(exchange)
    exchange.writer.transport.abort()


async def garbled(exchange):
    await cut(exchange)
    await exchange.raw("data: {nonsense\n\n")
    await exchange.end()


async def not_an_object(exchange):
    await exchange.start()
    await exchange.send([1, 2], "x", None)
    await exchange.end()


@pytest.mark.parametrize(
    "broken",
    [cut, cut_cleanly, reset, garbled, not_an_object, stream(chunk(content="a"), {"error": {"message": "overloaded"}})],
)
async def test_a_broken_stream_is_asked_again(broken):
    events, model = await play(broken, stream(*proposing(PROPOSAL)))
    assert events[-1] == WANTED and len(model.bodies) == 2 and "again in" in words(events, Status)
    events, _ = await play(broken)
    assert isinstance(events[-1], Failed) and events[-1].wait == 60


async def test_a_page_instead_of_a_stream_says_what_to_mend():
    async def page(exchange):
        await exchange.start(content_type="text/html")
        await exchange.raw("<html>welcome</html>")
        await exchange.end()

    events, model = await play(page)
    assert "OPENAI_BASE_URL" in events[-1].reason and len(model.bodies) == 1


async def test_an_endpoint_that_is_not_there_says_so():
    async with Model() as model:
        pass
    events = await turn(agent_of(model))
    assert "cannot be reached" in events[-1].reason and events[-1].wait == 60


async def test_a_stall_before_the_first_word_is_ended_by_our_clock():
    async def stall(exchange):
        await exchange.left()

    events, model = await play(stall, asking=Asking(protocol="chat", first_word=0.3, attempts=1))
    assert "sent nothing for 0.3 s" in events[-1].reason
    await asyncio.wait_for(model.left.wait(), 30)


async def test_a_stream_that_stalls_or_only_keeps_alive_is_ended_by_our_clock():
    async def drip(exchange):
        await exchange.start()
        await exchange.send(chunk(reasoning="Well"))
        while True:
            await exchange.raw(": PROCESSING\n\n")
            await exchange.send(chunk(content=""))
            await asyncio.sleep(0.01)

    events, _ = await play(drip, asking=Asking(protocol="chat", silence=0.3, attempts=1))
    assert words(events, Thought) == "Well" and "sent nothing for 0.3 s" in events[-1].reason


async def test_a_model_that_talks_for_ever_is_ended_by_the_turns_clock_or_by_its_length():
    async def talk(exchange):
        await exchange.start()
        while True:
            await exchange.send(chunk(reasoning="and "))
            await asyncio.sleep(0.01)

    async def flood(exchange):
        await exchange.start()
        while True:
            await exchange.send(chunk(content="x" * 65536))

    events, _ = await play(talk, asking=Asking(protocol="chat", turn=1.0))
    assert "did not finish in the turn's time" in events[-1].reason
    events, _ = await play(flood)
    assert "characters" in events[-1].reason


async def test_cancelling_in_mid_stream_closes_the_connection():
    async def think(exchange):
        await exchange.start()
        await exchange.send(chunk(reasoning="Well"))
        await exchange.left()

    async with Model(think) as model:
        heard = asyncio.Event()

        async def listen():
            async for _ in agent_of(model).propose(briefing(), Table()):
                heard.set()

        task = asyncio.create_task(listen())
        await asyncio.wait_for(heard.wait(), 60)
        assert not model.left.is_set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(model.left.wait(), 60)


async def test_cancelling_a_wait_ends_it():
    async with Model(refuse(503, Retry_After="50")) as model:
        agent = agent_of(model).propose(briefing(), Table())
        assert "again in 50 s" in (await anext(agent)).text
        task = asyncio.ensure_future(anext(agent))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_hostile_words_are_harmless():
    odd = "\ud800\x1b]0;x\x07[bold]\u202e"
    proposal = {**PROPOSAL, "hypothesis": f"odd {odd}", "edits": [*PROPOSAL["edits"]]}
    events, _ = await play(stream(chunk(reasoning=odd), chunk(content=odd), *proposing(proposal)))
    for event in events:
        repr(event).encode()
    assert words(events, Thought).encode() and events[-1].hypothesis.encode() and events[-1].edits == WANTED.edits


@pytest.mark.parametrize("key", [KEY, f"{KEY}-sk"])
async def test_the_key_is_masked_even_where_it_comes_in_pieces(key):
    told = [chunk(reasoning=letter) for letter in f"a {key} b"] + [chunk(content=letter) for letter in f"c {key} d"]
    proposal = {**PROPOSAL, "hypothesis": key, "expected_effect": f"<{key}>"}
    async with Model(stream(*told, *proposing(proposal))) as model:
        events = await turn(agent_of(model, OPENAI_API_KEY=key))
    assert words(events, Thought) == "a [key] b" and words(events, Text) == "c [key] d"
    assert (events[-1].hypothesis, events[-1].expected_effect) == ("[key]", "<[key]>")


async def test_a_placeholder_for_a_key_is_not_masked():
    async with Model(stream(*proposing(PROPOSAL))) as model:
        assert (await turn(agent_of(model, OPENAI_API_KEY="RATE")))[-1] == WANTED
        assert (await turn(agent_of(model, OPENAI_API_KEY="")))[-1] == WANTED


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "set OPENAI_API_KEY"),
        ({"OPENAI_BASE_URL": "https://api.openai.com/v1"}, "set OPENAI_API_KEY"),
        ({"OPENAI_API_KEY_FILE": "/nowhere/key"}, "No such file"),
        ({"OPENAI_API_KEY": f"{KEY}\n{KEY}"}, "no key"),
        ({"OPENAI_BASE_URL": "localhost:8000", "OPENAI_API_KEY": KEY}, "OPENAI_BASE_URL"),
    ],
)
def test_what_is_missing_is_told_at_once(environment, message, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_API_KEY_FILE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match=message) as raised:
        make("openai:some:model")
    assert KEY not in repr(raised.value)


async def test_a_key_file_is_read_anew_each_turn(tmp_path):
    file = tmp_path / "key"
    file.write_text("sk-the-first\n")
    async with Model(stream(*proposing(PROPOSAL))) as model:
        agent = agent_of(model, OPENAI_API_KEY="", OPENAI_API_KEY_FILE=str(file))
        assert (await turn(agent))[-1] == WANTED
        file.write_text("sk-the-second\n")
        assert (await turn(agent))[-1] == WANTED
        file.unlink()
        failed = (await turn(agent))[-1]
    assert [headers["authorization"] for headers in model.headers] == ["bearer sk-the-first", "bearer sk-the-second"]
    assert isinstance(failed, Failed) and "cannot be read" in failed.reason and failed.wait >= 600


def test_specs(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    assert make("openai:llama3:8b").name == "openai:llama3:8b"
    for spec in ("openai:", "openai", "search:x", "claude"):
        with pytest.raises(UnknownAgent, match="openai:MODEL"):
            make(spec)


def test_importing_the_agents_loads_no_back_end():
    code = "import loop.agents, sys; sys.exit('openai' in sys.modules or 'optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def run_git(root, *arguments):
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def assert_without_key(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files and not [path for path in files if KEY.encode() in path.read_bytes()]


@asynccontextmanager
async def engine_with(root, model, monkeypatch, experiments):
    monkeypatch.setenv("OPENAI_BASE_URL", model.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    study = Study(root=root, tag="t", config=load(root), device="cpu", budget=1.0, agent="openai:fake", sandbox="off")
    journal = Journal(study.journal)
    try:
        yield Engine(
            study,
            journal=journal,
            workspace=Workspace(root, "t"),
            agent=make("openai:fake"),
            experiments=experiments,
        )
    finally:
        journal.close()


async def test_the_engine_keeps_what_a_model_proposes_and_the_key_is_nowhere(repository, monkeypatch):
    better = {
        "hypothesis": f"LEARNING_RATE 0.02 -> 0.1, says {KEY}",
        "expected_effect": "-0.05",
        "edits": [
            {
                "path": "train.py",
                "search": "LEARNING_RATE = 0.02",
                "replace": f"# {KEY}\nLEARNING_RATE = 0.1",
            }
        ],
    }
    thought = [chunk(reasoning=piece) for piece in ("I know ", KEY[:9], KEY[9:], "\x1b[31m\n")]
    async with (
        Model(refuse(500, f"{KEY} is overloaded", Retry_After="0.1"), stream(*thought, *proposing(better))) as model,
        engine_with(repository, model, monkeypatch, 1) as engine,
    ):
        await engine.run()
    kept = engine.state.experiments[1]
    assert kept.verdict == "keep" and kept.delta < 0 and kept.agent == "openai:fake"
    assert kept.changes[0].new == "0.1" and kept.hypothesis.endswith("says [key]")
    said = engine.study.reasoning(1).read_text()
    assert "I know [key]\n" in said and "[key] is overloaded; again in" in said and "\x1b" not in said
    assert "Make it better." in model.bodies[-1]["messages"][1]["content"]
    assert_without_key(repository / ".labtop")
    history = run_git(repository, "log", "--all", "-p")
    assert KEY not in history and "LEARNING_RATE = 0.1" in history


async def test_the_engine_waits_for_a_person_where_the_key_is_refused(repository, monkeypatch, until):
    async with (
        Model(refuse(401, f"\x1b[31mwrong key {KEY}\u202e")) as model,
        engine_with(repository, model, monkeypatch, 1) as engine,
    ):
        running = asyncio.create_task(engine.run())
        await until(lambda: engine.state.last_failure, "the failure is told", 120)
        assert "set OPENAI_API_KEY" in engine.state.last_failure and len(model.bodies) == 1
        assert not {"\x1b", "\u202e"} & set(engine.state.last_failure)
        engine.stop(now=True)
        await running
    assert_without_key(repository / ".labtop")
