"""Measures a model that a trial has handed over, in a process in which no experiment's code runs. Frozen.

    python -m trainer.audit           measure what lies in $LABTOP_HANDOVER, and say whether the score may be believed
    python -m trainer.audit serve     the other side: answer rows of tokens with logits

Told by its environment as a trial is (see prepare.py), and LABTOP_WRAP: a JSON list, the command that runs what follows
it behind walls, in the experiment's own source tree. Only there is the model loaded. The child gets rows of tokens,
never targets nor a split's name, and gives logits; what it makes of them is arithmetic here. So nothing it does counts,
but for the numbers it answers, and those are held against each other:

- One child is asked PROBES: rows of which everything after some position was replaced by another row's text. It cannot
  know what stood there, since no process of this experiment has seen it yet.
- Then another, fresh one answers all rows as they are, which gives the score. Up to the position of each cut both must
  agree: what it told better than the first, it read ahead.
- A few rows come to both as they are, in other company and in the same: whether rows of a batch, or what was asked
  before, change an answer.
- A child that works long before its first answer trains there, beside the budget.

What it cannot find: text of the validation split that the script itself brings along, for whoever wrote it may know the
corpus by heart; a model that reads ahead in so few places that no probe meets one (each position of a row is cut about
equally often; a hundredth of the rows may pass); and whether the training kept to its budget, which the loop judges by
the time it took. If the walls let the two children write where the other one reads, the second may know which answers
will be compared: a model that is worse there is found, but only where it gains more than about a tenth of a bit by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import json
import math
import os
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil
import torch

from trainer import prepare
from trainer.prepare import CONTEXT, DEVICE, PROFILE, PROFILES, Tokens

Colour = Literal["green", "amber", "red"]
COLOURS: tuple[Colour, ...] = ("green", "amber", "red")
Finding = tuple[Colour, str]
LogProbabilities = npt.NDArray[np.float32]
Order = npt.NDArray[np.int64]

LARGEST = 8 * 2**30
"""Bytes of a model's file."""
FLOOR = 0.3
"""Bits per byte below which no model of this size tells English."""
GAP = 0.5
"""Bits per byte by which the holdout split may be harder than the validation split."""
BRINGING_UP = (4.0, 0.15)
"""What a child may take until its first answer: so many times what this process took, and so much of the budget."""
WATCHED = 8
"""Tokens of the vocabulary that are compared beside the target, drawn anew for each audit."""
SAME = {"cpu": 1e-3}.get(DEVICE.type, 0.2)
"""Nats by which one answer may differ between two batches: of rounding. Ten times as much is amber, more is red."""
SAME_MEAN = {"cpu": 1e-4}.get(DEVICE.type, 5e-4)
"""And in the mean, beside four standard errors: rounding has no direction."""


class Red(Exception):
    """The audit need not go on; the message says what was found."""


class Handover(NamedTuple):
    """What the trial says about its model: hostile, but for its types."""

    rows: int
    """How many go through the model at once."""
    why: str | None
    """Why it is run by its own code; None: it is a graph."""


def read_handover(folder: Path) -> Handover:
    """Raises: Red, where it is not what `prepare.finish` leaves."""
    if folder.is_symlink() or not folder.is_dir():
        raise Red("the trial left no model")
    try:
        with open(os.open(folder / "handover.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Red("handover.json is no plain file")
            note = json.loads(file.read(2**16))
    except FileNotFoundError:
        raise Red("the trial left no model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Red(f"handover.json cannot be read: {error}") from None
    if not isinstance(note, dict) or note.get("kind") not in ("graph", "code") or type(note.get("rows")) is not int:
        raise Red("handover.json is not what the harness writes")
    name = "model.pt2" if note["kind"] == "graph" else "model.pt"
    try:
        found = os.lstat(folder / name)
    except OSError:
        raise Red("the trial left no model") from None
    if not stat.S_ISREG(found.st_mode):
        raise Red(f"{name} is no plain file")
    if found.st_size > LARGEST:
        raise Red(f"{name} has {found.st_size / 2**30:.0f} GiB; at most {LARGEST / 2**30:.0f} are taken")
    if not 1 <= note["rows"] <= LARGEST // (4 * CONTEXT * PROFILES[PROFILE].vocabulary):
        raise Red(f"the model wants {note['rows']} rows at once, whose logits would not fit")
    return Handover(note["rows"], None if note["kind"] == "graph" else str(note.get("why")))


class Child:
    """A process that answers rows in the order in which they are asked. It may do anything, but not block this one.

    Raises, from each method: Red, where it ends, or does not answer before the deadline.
    """

    def __init__(self, wrap: list[str]) -> None:
        command = [*wrap, sys.executable, "-m", "trainer.audit", "serve"]
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            sys.exit(f"the model cannot be run behind its walls: {error}")
        assert self.process.stdin and self.process.stdout
        self.begun = time.monotonic()
        self.deadline = self.begun + PROFILES[PROFILE].patience
        self.questions, self.answers = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.questions, False)
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(self.answers, fcntl.F_SETPIPE_SZ, 2**20)
        self.unasked = memoryview(b"")
        self.said = b""
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        """Keep the end of what it says, for the reason it died of. Never passed on as it is: it could say "green"."""
        assert self.process.stderr
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(self.process.stderr.fileno(), 2**16):
                self.said = (self.said + chunk)[-2000:]

    def ask(self, rows: Tokens) -> None:
        """Rows [n, CONTEXT], sent as it takes them while `read` waits."""
        self.unasked = memoryview(rows.tobytes())

    def read(self, into: memoryview) -> None:
        """Fill `into` with what it answers."""
        while into:
            into = into[self._some(into) :]

    def worked(self) -> float:
        """Seconds since it was started: of CPU time of all its processes on a CPU, elsewhere of wall clock."""
        if DEVICE.type != "cpu":
            return time.monotonic() - self.begun
        seconds = 0.0
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.process.pid)
            for process in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    seconds += sum(process.cpu_times()[:4])  # With those of children that have ended.
        return seconds

    def end(self) -> None:
        """Nothing more is asked; nothing more may be answered."""
        assert self.process.stdin
        self.unasked = memoryview(b"")
        self.process.stdin.close()
        if self._some(memoryview(bytearray(1)), ending=True):
            raise Red("the model answers more than it was asked")

    def _some(self, into: memoryview, *, ending: bool = False) -> int:
        """How many bytes were read, while questions were sent: 0 only at the end."""
        while True:
            waiting = select.poll()
            waiting.register(self.answers, select.POLLIN)
            if self.unasked:
                waiting.register(self.questions, select.POLLOUT)
            ready = dict(waiting.poll(1000 * max(0.0, self.deadline - time.monotonic())))
            if not ready:
                raise Red(f"the model has not answered within {PROFILES[PROFILE].patience:g} s")
            if self.questions in ready:
                try:
                    self.unasked = self.unasked[os.write(self.questions, self.unasked) :]
                except BrokenPipeError:  # The end of its answers tells the rest.
                    self.unasked = memoryview(b"")
            if self.answers in ready:
                size = os.readv(self.answers, [into])
                if size or ending:
                    return size
                raise Red(f"the model cannot be run: {self._why_it_ended()}")

    def _why_it_ended(self) -> str:
        try:
            status = f"its process ended with status {self.process.wait(5)}"
        except subprocess.TimeoutExpired:
            status = "it stopped answering"
        self.listener.join(1)
        lines = self.said.decode(errors="replace").strip().splitlines()
        return f"{status}; its last words: {lines[-1]}" if lines else status

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def answers(child: Child, rows: Tokens, tokens: Tokens, at_once: int, vocabulary: int) -> LogProbabilities:
    """Of `tokens` [n, CONTEXT, k] at each position of `rows` [n, CONTEXT], where n is a multiple of `at_once`.

    Raises: Red.
    """
    logits = torch.empty(at_once, CONTEXT, vocabulary, pin_memory=DEVICE.type == "cuda")
    into = memoryview(logits.numpy().data).cast("B")
    found = np.empty(tokens.shape, np.float32)
    told = time.monotonic()
    mine = time.process_time() if DEVICE.type == "cpu" else prepare._age()
    allowed = BRINGING_UP[0] * mine + BRINGING_UP[1] * prepare.BUDGET
    child.ask(rows)
    for at in range(0, len(rows), at_once):
        child.read(into)
        if at == 0 and (worked := child.worked()) > allowed:
            raise Red(
                f"the model worked {worked:.1f} s before its first answer; {allowed:.1f} s are more than it needs"
            )
        wanted = torch.from_numpy(tokens[at : at + at_once].astype(np.int64))
        found[at : at + at_once] = prepare.log_probabilities(logits.to(DEVICE), wanted.to(DEVICE)).cpu()
        if time.monotonic() > told + 10:
            told = time.monotonic()
            print(f"audit {100 * at // len(rows):03d}%", flush=True)
    child.end()
    if not np.isfinite(found[..., 0]).all():
        raise Red("the model's logits give a token that came no probability at all, or none that is a number")
    return found


def audit(folder: Path, wrap: list[str]) -> tuple[dict[str, float], list[Finding]]:
    """The numbers that were measured, and what was found. Raises: Red."""
    at_once, why = read_handover(folder)
    with Child(wrap) as first, Child(wrap) as second:
        text = prepare.load_text(quiet=True)
        vocabulary = text.tokenizer.n_vocab
        validation = prepare.locked_rows(text, "validation")
        n = len(validation)
        rows = np.concatenate([validation, prepare.locked_rows(text, "holdout")[:n]])
        # Without a seed: nobody shall know what is asked, nor in which order.
        random = np.random.default_rng()
        order = random.permutation(len(rows))

        # A probe's row comes to the first child in no other question, nor does its end serve another probe.
        probed = order[order < n][: max(64, n // 4)]
        others = random.permutation(np.setdiff1d(order, probed))
        moved = others[: len(probed) // 4]
        cut = np.resize(random.permutation(CONTEXT - 1), len(probed))
        kept = np.arange(CONTEXT) <= cut[:, None]
        probes = np.where(kept, rows[probed, :-1], rows[np.resize(others, len(probed)), :-1])

        asked, mixed = (_batches(x, at_once) for x in (order, random.permutation(len(probed) + len(moved))))
        again = asked[:at_once]
        questions = np.concatenate([np.concatenate([probes, rows[moved, :-1]])[mixed], rows[again, :-1]])
        behind = np.concatenate([np.concatenate([probed, moved])[mixed], again])

        watched = random.choice(vocabulary, WATCHED, replace=False).astype(np.uint16)
        tokens = np.concatenate([rows[:, 1:, None], np.broadcast_to(watched, (len(rows), CONTEXT, WATCHED))], axis=-1)
        hidden = answers(first, questions, tokens[behind], at_once, vocabulary)
        shown = answers(second, rows[asked, :-1], tokens[asked], at_once, vocabulary)

    twice = _change(hidden[-at_once:], shown[:at_once])
    hidden, shown = hidden[_first_of(mixed)], shown[_first_of(asked)]
    company = _change(hidden[len(probed) :], shown[moved])
    hidden = hidden[: len(probed)]
    ahead = _change(hidden[kept], shown[probed][kept])
    # Nats that a target gains by what comes after it, for each probe: of all that was kept, and of the last that was.
    gain = np.where(kept, shown[probed, :, 0] - hidden[..., 0], 0)
    gains = [gain.sum(1) / kept.sum(1), gain[np.arange(len(probed)), cut]]
    # How much worse than usual it is where its answers are compared, and in as much of the rows where they are not.
    excess = shown[:n, :, 0].mean(0) - shown[:n, :, 0]
    rest = others[others < n]
    there = np.where(kept, excess[probed], 0).sum(1)
    elsewhere = np.where(np.resize(kept, (len(rest), CONTEXT)), excess[rest], 0).sum(1)

    findings: list[Finding] = [] if why is None else [("green", f"run by its own code, not as a graph: {why}")]
    bytes_ = int(text.bytes_of.numpy()[rows[:n, 1:]].sum())
    cost = max(float(gain.mean()) for gain in gains) * n * CONTEXT / (math.log(2) * bytes_)
    reads = any(_above(gain, SAME_MEAN, errors=4) for gain in gains)
    worse = len(rest) > 0 and _above(there, elsewhere.mean(), errors=6)
    checks: list[Finding] = [
        (_colour(twice), f"it answers one question in two ways: {_nats(twice)}"),
        (_colour(company), f"other rows of a batch, or earlier ones, change its answers: {_nats(company)}"),
        ("red" if reads else "green", f"it reads ahead: hiding what comes after costs {cost:.2f} bpb; {_nats(ahead)}"),
        (_colour(ahead), f"what comes after a position changes its answers there: {_nats(ahead)}"),
        ("red" if worse else "green", "it is worse where its answers are compared than where they are not"),
    ]
    # What is red first may well be why the next ones are; what is amber excuses none.
    findings += [check for check in checks if check[0] == "red"][:1] or [
        check for check in checks if check[0] == "amber"
    ]
    val_bpb = prepare.bits_per_byte(shown[:n, :, 0], rows[:n, 1:], text)
    holdout_bpb = prepare.bits_per_byte(shown[n:, :, 0], rows[n:, 1:], text)
    if val_bpb < FLOOR:
        findings.append(("red", f"{val_bpb:.4f} bpb is better than a model of this size can be"))
    if holdout_bpb - val_bpb > GAP:
        findings.append(("red", f"it knows the validation text: the holdout costs it {holdout_bpb:.4f} bpb"))
    return {"val_bpb": val_bpb, "holdout_bpb": holdout_bpb, "audited_tokens": rows[:, 1:].size}, findings


def _batches(order: Order, at_once: int) -> Order:
    """As many as make whole batches; the last one is filled up with the first ones again."""
    return np.resize(order, -(-len(order) // at_once) * at_once)


def _first_of(order: Order) -> Order:
    """Where each index, from 0 on, stands in `order`."""
    return np.unique(order, return_index=True)[1]


def _change(a: LogProbabilities, b: LogProbabilities) -> float:
    """The largest difference, in nats."""
    with np.errstate(invalid="ignore"):
        return float(np.where(a == b, 0, np.abs(a - b)).max(initial=0))


def _above(values: npt.NDArray[np.float32], limit: float, *, errors: float) -> bool:
    """Whether their mean is, by more than so many of its standard errors."""
    return bool(values.mean() - limit > errors * values.std() / len(values) ** 0.5)


def _colour(change: float) -> Colour:
    return "green" if change <= SAME else "amber" if change <= 10 * SAME else "red"


def _nats(change: float) -> str:
    return f"a log-probability changes by {change:.2g}"


# --------------------------------------------------------------------------------------------------------------------
# The other side


def serve() -> None:
    """Answer rows on stdin, [n, CONTEXT] uint16, with logits on stdout, [n, CONTEXT, vocabulary] float32, until EOF."""
    # What the model's code prints must not come between the answers.
    questions, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    folder = Path(os.environ["LABTOP_HANDOVER"])
    note = json.loads((folder / "handover.json").read_text())
    if note["kind"] == "graph":
        model = torch.export.load(folder / "model.pt2").module()
    else:
        # The classes of a script are pickled by the name that it had when it ran.
        sys.modules["__main__"] = script(note["script"])
        model = torch.load(folder / "model.pt", map_location=DEVICE, weights_only=False).eval()
    with torch.no_grad():
        while raw := questions.read(note["rows"] * CONTEXT * 2):
            rows = torch.frombuffer(bytearray(raw), dtype=torch.uint16).view(-1, CONTEXT)
            logits = model(rows.to(DEVICE, torch.int64)).float().cpu().contiguous()
            left = memoryview(logits.numpy().data).cast("B")
            while left:
                left = left[os.write(replies, left) :]
    os._exit(0)


def script(name: str) -> ModuleType:
    """The training script, by its module's name or its path, imported and not run."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location("handed_over", name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    if sys.argv[1:] == ["serve"]:
        serve()
    if "LABTOP_HANDOVER" not in os.environ:
        sys.exit("LABTOP_HANDOVER must name the folder in which a trial has left its model")
    numbers: dict[str, float] = {}
    try:
        numbers, findings = audit(
            Path(os.environ["LABTOP_HANDOVER"]), json.loads(os.environ.get("LABTOP_WRAP") or "[]")
        )
    except Red as red:
        findings = [("red", str(red))]
    print("---")
    for name, value in numbers.items():
        print(f"{name}: {value:.6f}" if isinstance(value, float) else f"{name}: {value}")
    print("audit:", max((colour for colour, _ in findings), key=COLOURS.index, default="green"))
    for _, sentence in findings:
        # Parts of it may come from the experiment: one line, and nothing that a terminal obeys.
        print("finding:", "".join(c if c.isprintable() else " " for c in sentence)[:300])


if __name__ == "__main__":
    main()
