from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.cautions import AT_MOST, cautions
from loop.patch import Edit, apply_edits

TRAINER = {"train.py": (Path(__file__).parents[2] / "trainer" / "train.py").read_text()}
BASE = """\
import math
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from trainer import prepare
from trainer.prepare import SEED, Clock

torch.manual_seed(SEED)
clock = Clock()
while clock.step():
    pass
prepare.finish(
    model,
    text,
)
"""
LINES = BASE.count("\n")


def seen(new, old=BASE, *, path="train.py", metric="val_bpb"):
    return [(found.line, found.kind) for found in cautions({path: old}, {path: new}, metric=metric)]


def kinds(new, old=BASE):
    return {kind for _, kind in seen(new, old)}


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("bpb = prepare.evaluate_bpb(model, text, 8)", {"evaluation", "score"}),
        ("prepare.finish(model, text, 1, clock, {})", {"evaluation"}),
        ("model.eval = lambda: model", {"evaluation"}),
        ("class Model(nn.Module):\n    def eval(self):\n        return self", {"evaluation"}),
        ("class Model(nn.Module):\n    def train(self, mode=True):\n        return self", {"evaluation"}),
        ("prepare.CONTEXT = 8", {"evaluation"}),
        ("F.log_softmax = lambda x, dim: x", {"evaluation"}),
        ("nn.Module.__call__ = lambda self, x: x", {"evaluation"}),
        ("setattr(torch.Tensor, 'sum', len)", {"evaluation"}),
        ("p = prepare\np.PROFILES['cpu'] = None", {"evaluation"}),
        ("prepare = Fake()", {"evaluation"}),
        ("class Loud(float):\n    def __format__(self, spec):\n        return '0.1'", {"evaluation"}),
        ("if torch.compiler.is_exporting():\n    x = 0", {"evaluation"}),
        ("import time", {"clock"}),
        ("from time import process_time as p", {"clock"}),
        ("begun = prepare.now()", {"clock"}),
        ("clock.charged = 0", {"clock"}),
        ("def back(c):\n    c.charged -= 1", {"clock"}),
        ("clock._mark += 3", {"clock"}),
        ("c = Clock(9)\nwhile c.step():\n    x = 1", {"clock"}),
        ("prepare.BUDGET = 9", {"clock", "evaluation"}),
        ("torch.manual_seed(42)", {"seed"}),
        ("torch.cuda.manual_seed_all(1)", {"seed"}),
        ("noise = torch.Generator().manual_seed(7)", {"seed"}),
        ("random = np.random.default_rng(3)", {"seed"}),
        ("batches = prepare.batches(text, 8, 64, seed=2)", {"seed"}),
        ("rows = text.validation[:8]", {"validation data"}),
        ("rows = getattr(text, 'validation')", {"validation data"}),
        ("val_rows = 8", {"validation data"}),
        ("rows = np.load('/cache/locked/holdout.npy')", {"validation data", "files"}),
        ("text = prepare.load_text('tinystories')", {"validation data"}),
        ("from trainer import corpus", {"validation data"}),
        ("print('val_bpb: 0.1')", {"score"}),
        ("print(f'\\n---\\n{name}: {loss}')", {"score"}),
        ("sys.stdout.write(line)", {"score"}),
        ("print('nothing', file=log)", {"score"}),
        ("def print(*words):\n    pass", {"score"}),
        ("import requests", {"network"}),
        ("from urllib import request as r", {"network"}),
        ("import torch.hub", {"network"}),
        ("model = load('https://example.org/model')", {"network"}),
        ("from transformers import GPT2Model", {"network"}),
        ("import subprocess as s\ns.run(['ls'])", {"process"}),
        ("import os\nos.system('ls')", {"process"}),
        ("import os as o\nx = getattr(o, 'fork')()", {"process"}),
        ("import ctypes", {"process"}),
        ("import signal", {"process", "clock"}),
        ("import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9, 9))", {"process"}),
        ("import atexit", {"process"}),
        ("x = open('x').read()", {"files"}),
        ("from pathlib import Path as P\nx = P('x')", {"files"}),
        ("import os\nx = os.environ['HOME']", {"files"}),
        ("x = (text.folder / 'x').read_bytes()", {"files"}),
        ("x = torch.load('x.pt')", {"files"}),
        ("sys.modules['x'] = None", {"files", "evaluation"}),
        ("sys.path.insert(0, '.')", {"files"}),
        ("x = __import__('o' + 's')", {"files"}),
        ("exec('x = 1')", {"files"}),
        ("x = eval('1')", {"files"}),
        ("x = compile('1', 'x', 'eval')", {"files", "evaluation"}),
        ("x = getattr(torch, 'lo' + 'ad')('x')", {"files"}),
        ("x = model.__class__.__subclasses__()", {"files"}),
    ],
)
def test_what_is_looked_at_twice(added, expected):
    assert kinds(f"{BASE}{added}\n") == expected


@pytest.mark.parametrize(
    "added",
    [
        "# seed, clock and evaluate_bpb are as they were; see https://example.org",
        "'''Evaluation: the seed is SEED, val_bpb: 0.1.\n---\n'''",
        "def forward(x):\n    'The clock, time.time() and open().'\n    return x",
        "time = x.size(1)\nsignal = time * 2\nrequests = signal",
        "step = torch.compile(step)\nprint(f'{clock.steps} steps, {clock.progress:.1%}, {clock.remaining:.0f} s left')",
        "import random\nimport functools\nfrom collections.abc import Generator",
        "torch.backends.cuda.matmul.allow_tf32 = True\ntorch._dynamo.config.cache_size_limit = 64",
        "import gc\nimport os\ngc.freeze()\ntorch.set_num_threads(os.cpu_count())",
        "model.train()\nvalue = getattr(model, name)\nvalues = retrieval = interval = value",
        "now = clock.progress\nfinished = now > 1\nnow = 0",
        "print('-' * 40)\nprint(f'{norm(x):.3f} is the norm')",
        "for name, value in sizes.items():\n    print(name, value)",
        "x = F.dropout(x, 0.1, self.training)",
    ],
)
def test_ordinary_lines_are_let_alone(added):
    assert seen(f"{BASE}{added}\n") == []


EDITS = [
    ("MATRIX_LR = 0.03", "MATRIX_LR = 0.05"),
    ('HEAD_LR = {"cpu": 0.02', 'HEAD_LR = {"cpu": 0.04'),
    ("WARMDOWN = 0.5", "WARMDOWN = 0.7"),
    ('DEPTH = {"cpu": 2', 'DEPTH = {"cpu": 4'),
    ('WINDOWS = "SL"', 'WINDOWS = "SSSL"'),
    ("SHIFT = True", "SHIFT = False"),
    (
        '"""RMS norm without weights',
        '"""The score, the seed and the clock do not come in here: RMS norm without weights',
    ),
    ("F.relu(self.up(norm(x))).square()", "F.gelu(self.up(norm(x)))"),
    ("nn.init.normal_(self.embedding.weight)", "nn.init.normal_(self.embedding.weight, std=0.02)"),
    ("self.again = nn.Parameter(torch.full((DEPTH,), 0.5))", "self.again = nn.Parameter(torch.zeros(DEPTH))"),
    ("return norm(x)\n\n    def logits", "return norm(F.dropout(x, 0.1, self.training))\n\n    def logits"),
    ("for _ in range(5):\n        square", "for _ in range(6):\n        square"),
    ("eps=1e-10", "eps=1e-8"),
    ("return [Muon(inner), adam]", "return [torch.optim.SGD(inner, lr=0.1, momentum=0.9, nesterov=True), adam]"),
    ("return FINAL_LR + (1 - FINAL_LR) * (1 - progress) / WARMDOWN", "return 0.5 + 0.5 * math.cos(math.pi * progress)"),
    ("factor = schedule(clock.progress)", "factor = schedule(clock.progress) if clock.steps > 1 else 0.1"),
    (
        "parts[-1].backward()",
        "parts[-1].backward()\n        nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
    ),
    ("dynamic=False", 'mode="max-autotune", dynamic=False'),
    ('f"dt: {1000 * clock.pace:.0f}ms', 'f"time: {1000 * clock.pace:.0f}ms'),
    ('"depth": DEPTH,', '"depth": DEPTH,\n        "width": WIDTH,'),
    (
        "model = GPT(text.tokenizer.n_vocab).to(DEVICE)",
        "model = GPT(text.tokenizer.n_vocab).to(DEVICE, torch.bfloat16)",
    ),
    (
        "import torch.nn.functional as F",
        "import torch.nn.functional as F\nfrom torch.nn.attention import flex_attention",
    ),
]


@pytest.mark.parametrize(("search", "replace"), EDITS)
def test_ordinary_edits_of_the_trainer_are_let_alone(search, replace):
    changed = apply_edits(TRAINER, [Edit(path="train.py", search=search, replace=replace)])
    assert cautions(TRAINER, changed, metric="val_bpb") == ()


def test_what_stood_there_before_is_no_news():
    assert seen(BASE) == []
    assert seen(BASE.replace("    pass\n", "    x = 1\n")) == []


def test_a_caution_is_a_line_of_the_new_file_and_its_text():
    (found,) = cautions({"a.py": "x = 1\n"}, {"a.py": f"\n\n  # why\nx = open({'y' * 500!r})\n"}, metric="loss")
    assert (found.path, found.line, found.kind) == ("a.py", 4, "files")
    assert found.text.startswith("x = open('yyy") and len(found.text) == 200


def test_a_line_is_told_once_a_kind_and_kinds_in_one_order():
    assert seen("x = open('a'), open('b'), subprocess, SEED\nimport subprocess\n", "") == [
        (1, "seed"),
        (1, "process"),
        (1, "files"),
        (2, "process"),
    ]


def test_other_arguments_are_another_evaluation():
    assert seen(BASE.replace("    text,\n", "    other,\n")) == [
        (BASE.splitlines().index("    text,") + 1, "evaluation")
    ]


@pytest.mark.parametrize(
    ("gone", "instead", "kind"),
    [
        ("torch.manual_seed(SEED)\n", "", "seed"),
        ("torch.manual_seed(SEED)", "# torch.manual_seed(SEED)", "seed"),
        ("prepare.finish(\n    model,\n    text,\n)\n", "", "evaluation"),
        ("clock.step()", "True", "clock"),
    ],
)
def test_what_is_missed_is_told_where_it_stood(gone, instead, kind):
    new = BASE.replace(gone, instead)
    at = min(BASE[: BASE.index(gone)].count("\n") + 1, new.count("\n") + 1)
    found = cautions({"train.py": BASE}, {"train.py": new}, metric="val_bpb")
    assert [(caution.line, caution.kind) for caution in found] == [(at, kind)]
    assert found[0].text.startswith("- ") and found[0].text[2:] in BASE


def test_what_is_moved_is_told_where_it_went():
    seed = "torch.manual_seed(SEED)\n"
    assert seen(BASE.replace(seed, "") + seed) == [(LINES, "seed")]


def test_the_score_is_followed_to_where_it_is_printed():
    old = (
        "def main():\n    result = evaluate(model)\n    summary = {'loss': result}\n"
        "    for name, value in summary.items():\n        print(name, value)\n"
        "def other(name, value):\n    print(name, value)\n"
    )
    assert kinds(old.replace("        print(name, value)", "        print(name, value / 2)"), old) == {"score"}
    assert kinds(old.replace("        print", "        value -= 1\n        print"), old) == {"score"}
    assert kinds(old.replace("'loss': result", "'loss': result, 'depth': 2"), old) == {"score"}
    assert seen(old[: old.index("def other")] + "def other(name, value):\n    print(value)\n", old) == []


def test_a_metric_of_one_word_is_followed_only_from_where_it_is_measured():
    old = "loss = f(x)\nloss.backward()\nprint(x)\n"
    new = old.replace("f(x)", "f(x) + 1").replace("print(x)", "print(f'loss: {x}')")
    assert seen(new, old, metric="loss") == [(3, "score")]


def test_an_f_string_over_several_lines_is_one_thing():
    new = 'print(\n    f"step {x}"\n    f"val_bpb: {y}"\n)\n'
    assert seen(new, new.replace("{y}", "{z}")) == [(3, "score")]
    assert seen('import os\nx = f"""\n{os.environ}\n"""\n', 'import os\nx = f"""\n{os}\n"""\n') == [(3, "files")]


def test_a_carriage_return_hides_nothing():
    assert seen("x = 1  # harmless\rimport socket\ny = 2\nz = open('x')\r\n", "") == [(1, "network"), (3, "files")]


def test_an_expression_that_is_too_deep_hides_nothing():
    for depth in (600, 100_000):
        assert (2, "files") in seen("x = " + "+".join("1" * depth) + "\nimport os; os.remove('x')\n", "")


def test_files_that_are_no_python_are_read_by_their_words():
    old = "lr: 0.1\nseed: 1\nurl: here\nval_loss: 3\n"
    new = "lr: 0.2\nseed: 2\nurl: https://example.org\nval_loss: 2\nrun: subprocess.run.\n"
    assert seen(new, old, path="a.yaml", metric="val_loss") == [
        (2, "seed"),
        (3, "network"),
        (4, "score"),
        (5, "process"),
    ]
    assert seen("# it takes time and a signal.\nlr: 1\n", old, path="a.yaml") == []


def test_files_come_in_order_and_a_flood_is_cut_off():
    found = cautions({}, {"b.py": "open(1)\n" * 1000, "a.py": "import os\nos.kill(1, 9)\n"}, metric="loss")
    assert (found[0].path, found[0].line) == ("a.py", 2) and len(found) == AT_MOST


PIECES = st.sampled_from(
    ["import os", "from time import *", "x = ", "os", ".", "environ", "(", ")", "[", "]", "\n", "\r", "    ", "'", "1",
     '"""', "f'{", "}'", "Clock", "clock", "def ", "class ", ":", "lambda", "for x in ", "getattr(os, ", "print", "#",
     "-" * 9, "val_bpb", ":=", "match ", "\x00", "\ud800", "\\", "\u2028", "\x0c"]
)  # fmt: skip
TEXT = st.text() | st.lists(PIECES, max_size=30).map("".join)


@given(TEXT, TEXT, st.sampled_from(["a.py", "a.txt"]), st.text(max_size=8))
def test_no_text_is_too_odd(old, new, path, metric):
    for found in cautions({path: old}, {path: new}, metric=metric):
        assert 1 <= found.line <= new.count("\n") + 1 and len(found.text) <= 200


@pytest.mark.parametrize(
    "text",
    [
        "x" + ".prepare" * 2000 + "\n",
        "_" * 200_000 + "\n",
        "import os\n" + "os.environ\n" * 20_000,
        "x = f'" + "{a}" * 20_000 + "'\n",
        "".join(f"x{at} = x{at + 1}\n" for at in range(5_000)) + "x5000 = evaluate()\n",
    ],
)
def test_it_takes_no_longer_than_its_length_asks(text):
    begun = time.process_time()
    cautions({"a.py": ""}, {"a.py": text}, metric="val_bpb")
    assert time.process_time() - begun < 20
