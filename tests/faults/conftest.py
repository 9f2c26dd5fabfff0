"""Studies to be broken, workers to break them in, and `check`, which tells every promise that was not kept."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from loop import events as ev
from loop import results
from loop.journal import read
from loop.remote.daemon import Order
from loop.state import fold
from loop.study import journal_path

# The workers find by name what they are to do.
sys.path.insert(0, str(Path(__file__).parent))
import mortal

STANDIN = Path(__file__).parents[1] / "standin" / "train.py"
SETTINGS = """
command = "python train.py"
editable = ["train.py"]
budget = 1
policy = "margin"
timeout = 300
"""
AUDIT = """
import os
from pathlib import Path

print("val_bpb:", Path(os.environ["LABTOP_HANDOVER"], "model").read_text())
print("audit: green")
"""
STEPS = '''
def steps(control: Path):
    """As many as asked for, and more as long as the study's `hold` is there; each run leaves a line in `runs`."""
    with open(control / "runs", "a") as runs:
        print(os.getpid(), file=runs)
    step = 0
    while step < STEPS or (control.parents[3] / "hold").exists():
        yield step
        step += 1
        time.sleep(0.01)


def main() -> None:'''


class Ground:
    """A committed study in a folder of its own, and how its person left it."""

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float = 0.0,
        sandbox: str = "off",
        experiments: int = 2,
        audited: bool = False,
    ) -> None:
        self.root = folder / "study"
        self.root.mkdir(parents=True)
        self.experiments = experiments
        (folder / "run").mkdir(mode=0o700)
        text = (
            STANDIN.read_text().replace("def main() -> None:", STEPS.lstrip()).replace("range(STEPS)", "steps(control)")
        )
        # Of two moves from here the first is discarded and the second kept. No constant may say how long it takes.
        text = text.replace("LEARNING_RATE = 0.02", "LEARNING_RATE = 0.08").replace(
            "= 0.0\n", f"= float('{seconds}')\n"
        )
        (self.root / "train.py").write_text(text)
        (self.root / "program.md").write_text("Make it better.\n")
        settings = f'{SETTINGS}sandbox = "{sandbox}"\n'
        if audited:
            (self.root / "audit.py").write_text(AUDIT)
            settings = settings.replace('"margin"', '"confirm"')
            settings += 'frozen = ["audit.py"]\naudit = "python audit.py"\n'
        (self.root / "labtop.toml").write_text(settings)
        (self.root / ".gitignore").write_text(".labtop/\n")
        git(self.root, "init", "-q", "-b", "main", "--template=")
        git(self.root, "add", "-A")
        git(self.root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "a study")
        self.person = person(self.root)

    @property
    def order(self) -> Order:
        return Order(root=str(self.root), tag="t", device="cpu", experiments=self.experiments)

    def copy(self, folder: Path) -> Ground:
        """The same study at another place."""
        shutil.copytree(self.root.parent, folder, symlinks=True)
        twin = object.__new__(Ground)
        twin.root, twin.experiments, twin.person = folder / "study", self.experiments, self.person
        return twin

    def check(self) -> list[str]:
        """What is wrong with the study, which has ended; nothing where every promise was kept."""
        touched = ["the person's checkout was touched"] if person(self.root) != self.person else []
        return [*check(self.root, "t", self.experiments), *touched]


def check(root: Path, tag: str, asked: int) -> Iterator[str]:
    """Each promise that a study does not keep which has ended, in words. `asked`: the proposals it was to decide."""
    path = journal_path(root, tag)
    records, data = read(path), path.read_bytes()
    if len(records) != data.count(b"\n") or not data.endswith(b"\n"):
        yield f"only {len(records)} lines of the journal are good and in sequence"
    state, happened = fold(records), [record.event for record in records]
    if state.mode != "stopped":
        yield f"it is {state.mode}: {state.mode_reason}"
    if state.current or state.tried != asked:
        yield f"{state.tried} proposals were decided, not {asked}"

    decisions = Counter(event.number for event in happened if isinstance(event, ev.Decided))
    by_hand = Counter(event.number for event in happened if isinstance(event, ev.Decided) and event.by == "person")
    for number, times in decisions.items():
        if times != 1 and by_hand[number] != times - 1:
            yield f"{number:04d} was decided {times} times, {by_hand[number]} times by hand"
    if sorted(decisions) != list(range(len(state.experiments))):
        yield f"of {len(state.experiments)} experiments these were decided: {sorted(decisions)}"
    for name in (ev.TrialStarted, ev.TrialFinished):
        trials = Counter((event.number, event.trial) for event in happened if isinstance(event, name))
        if doubled := [trial for trial, times in trials.items() if times > 1]:
            yield f"{name.__name__} stands twice in the journal for {doubled}"
    for experiment in state.experiments:
        for trial in experiment.trials:
            runs = path.parent / f"experiments/{experiment.number:04d}/trial-{trial.trial}/control/runs"
            times = runs.read_text().count("\n") if runs.exists() else 0
            if times > 1 or (times == 0 and trial.outcome == "ok"):
                yield f"trial {trial.trial} of {experiment.number:04d} ({trial.outcome}) was run {times} times"
    if (path.parent / "results.tsv").read_text() != results.render(state):
        yield "results.tsv is not what the journal tells"

    best = state.best
    if best is None or git(root, "rev-parse", f"refs/heads/labtop/{tag}") != best.commit:
        yield f"the branch does not stand on the incumbent {best and best.number}"
    refs = git(root, "for-each-ref", "--format=%(refname:lstrip=-1) %(objectname)", f"refs/labtop/{tag}/").splitlines()
    if refs != [f"{one.number:04d} {one.commit}" for one in state.experiments if one.commit]:
        yield f"the experiments' refs are {refs}"
    if said := git(root, "fsck", "--strict", "--no-dangling", "--no-progress"):
        yield f"git fsck: {said}"
    if left := still_there(root):
        yield f"processes of the study are left: {left}"


def person(root: Path) -> tuple[object, ...]:
    """All that is the person's: HEAD, its branch, index, stash and files."""
    files = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    said = [git(root, "symbolic-ref", "HEAD"), git(root, "rev-parse", "HEAD"), git(root, "status", "--porcelain")]
    return *said, (root / ".git" / "index").read_bytes(), (root / ".git" / "refs" / "stash").exists(), files


def still_there(root: Path) -> list[str]:
    """The command lines of the living processes that have to do with `root`; what is on its way out has a moment."""
    deadline = time.monotonic() + 10.0
    while (found := list(_of(root))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _of(root: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            command = (process / "cmdline").read_bytes()
            words = command + (process / "environ").read_bytes()
            if str(root).encode() in words or (process / "cwd").readlink().is_relative_to(root):
                yield command.replace(b"\0", b" ").decode(errors="replace")[:200]
        except OSError:
            continue


def git(root: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else f"{done.stdout}{done.stderr}".strip()


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """`place` with something mounted on it. Skips the test where this user may not."""
    place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def workers() -> Iterator[ProcessPoolExecutor]:
    """Two processes that have an engine's imports behind them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(mortal.PRELOAD)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        yield pool


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder in memory, where there is one: what a killed process has written outlives it there as on a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="labtop-", dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)
