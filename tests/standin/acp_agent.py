"""A stand-in for somebody's coding agent: speaks the Agent Client Protocol on its pipes, as its script says.

The script is a JSON file: a list of turns, each a list of steps such as ["say", "words"]; the last turn is repeated.
It knows nothing of the SDK that it is tested with.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

turns = json.loads(Path(sys.argv[1]).read_text())
waiting, numbers = {}, iter(range(1, 1000))


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def absolute(path):
    return str(Path.cwd() / path)


def update(what, **fields):
    send(method="session/update", params={"sessionId": "s", "update": {"sessionUpdate": what, **fields}})


def ask(method, **params):
    number = next(numbers)
    send(id=number, method=method, params={"sessionId": "s", **params})
    while True:
        message = json.loads(sys.stdin.readline())
        if message.get("id") == number and "method" not in message:
            return message.get("result", message.get("error"))


def play(steps):
    """The answer to a prompt."""
    stop = "end_turn"
    used = {"usage": {"totalTokens": 1200, "inputTokens": 1000, "outputTokens": 200, "cachedReadTokens": 400}}
    for step, *rest in steps:
        match step:
            case "think" | "say":
                kind = "agent_thought_chunk" if step == "think" else "agent_message_chunk"
                for at in range(0, len(rest[0]), 9):
                    update(kind, content={"type": "text", "text": rest[0][at : at + 9]})
            case "plan":
                entries = [{"content": text, "priority": "medium", "status": "pending"} for text in rest]
                update("plan", entries=entries)
            case "odd":
                update("something_of_tomorrow", whatever=[1])
            case "replace":
                path, old, new = rest
                Path(path).write_text(Path(path).read_text().replace(old, new))
                diff = {"type": "diff", "path": absolute(path), "oldText": old, "newText": new}
                update("tool_call", toolCallId=path, title=f"Edit {path}", kind="edit", content=[diff])
            case "write":
                Path(rest[0]).parent.mkdir(exist_ok=True, parents=True)
                Path(rest[0]).write_text(rest[1])
            case "link":
                Path(rest[0]).unlink(missing_ok=True)
                Path(rest[0]).symlink_to(rest[1])
            case "permission":
                kind, *paths = rest
                call = {"toolCallId": f"p{kind}", "title": f"{kind} {paths}", "kind": kind}
                call["locations"] = [{"path": absolute(path)} for path in paths]
                options = [{"optionId": o, "name": o, "kind": o} for o in ("allow_once", "reject_once")]
                outcome = ask("session/request_permission", toolCall=call, options=options)["outcome"]
                update("agent_thought_chunk", content={"type": "text", "text": f"[{kind} {outcome['optionId']}]"})
            case "client write":
                answer = ask("fs/write_text_file", path=absolute(rest[0]), content=rest[1])
                said = "refused" if "code" in (answer or {}) else "written"
                update("agent_thought_chunk", content={"type": "text", "text": f"[{said}]"})
            case "client read":
                answer = ask("fs/read_text_file", path=absolute(rest[0]))
                update("agent_thought_chunk", content={"type": "text", "text": f"[{answer.get('content', 'refused')}]"})
            case "cost":
                update("usage_update", used=rest[0], size=200_000, cost={"amount": rest[1], "currency": "USD"})
            case "quota":
                used = {"_meta": {"quota": {"token_count": {"input_tokens": rest[0], "output_tokens": rest[1]}}}}
            case "child":
                code = "import time,signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
                child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
                Path(rest[0]).write_text(str(child.pid))
            case "sleep":
                time.sleep(rest[0])
            case "die":
                print(rest[0], file=sys.stderr, flush=True)
                os._exit(3)
            case "stop":
                stop = rest[0]
            case "error":
                return {"error": {"code": rest[0], "message": rest[1]}}
    return {"result": {"stopReason": stop, **used}}


told = Path(sys.argv[2]).open("a")  # noqa: SIM115 - as long as the process lives
while line := sys.stdin.readline():
    request = json.loads(line)
    match request.get("method"):
        case "initialize":
            name = {"name": "tiny", "version": "0.1"}
            send(id=request["id"], result={"protocolVersion": 1, "agentCapabilities": {}, "agentInfo": name})
        case "session/new":
            if turns and turns[0] and turns[0][0][0] == "locked":
                send(id=request["id"], error={"code": -32000, "message": "Authentication required"})
            else:
                send(id=request["id"], result={"sessionId": "s"})
        case "session/prompt":
            print(json.dumps(request["params"]["prompt"][0]["text"]), file=told, flush=True)
            send(id=request["id"], **play(turns.pop(0) if len(turns) > 1 else turns[0]))
