"""The lines of a patch that a person should look at twice, since they touch what its trial is measured by. Pure.

It reads names, not intentions: it helps whoever reads the diff and stops nobody; walls are the sandbox's work.
"""

from __future__ import annotations

import ast
import difflib
import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from typing import NamedTuple

from loop.events import Caution, CautionKind

AT_MOST = 200
"""Cautions of one patch. One that has more is to be read as a whole."""
TEXT_AT_MOST = 200

_NAMES: dict[CautionKind, str] = {
    "evaluation": r"(\w*_)?(?i:eval\w*|bpb(_\w*)?|handover)|finish|export(_\w+)?|is_exporting|_orig_mod|bytes_of"
    r"|__(torch_\w+|format|float)__",
    "clock": r"Clock|(?i:(labtop_)?budget)|(perf_counter|process_time|thread_time|monotonic)(_ns)?"
    r"|training_seconds",
    "seed": r"(?i:(\w*_)?(re)?seeds?(_\w*)?)|default_rng|fork_rng|RandomState|(\w*_)?rng_state(_\w*)?",
    "validation data": r"(?i:(\w*_)?(validation|holdout|held_?out|locked)(_\w*)?|val_(?!bpb)\w*)|load_text|_replace",
    "network": r"from_pretrained|load_dataset|hf_hub_download|snapshot_download|urlopen|load_state_dict_from_url",
    "process": r"[pP]open|load_inline",
    "files": r"(read|write)_(text|bytes)|tofile|fromfile|memmap|unlink|rmtree|folder"
    r"|__(dict|globals|code|builtins|import|closure|subclasses|bases|mro|class|getattribute|setattr|loader|spec|reduce"
    r"|reduce_ex|getstate|setstate)__",
}
"""Whole names that say it wherever they stand: variables, attributes, keywords, and strings that could be names."""

_OS_PROCESS = r"os\.(system|popen|fork|exec|spawn|posix_|kill|abort|_exit|wait|set|nice|sched_set|dup|pipe|unshare)"
_REACHED: dict[CautionKind, str] = {
    "evaluation": r"(.*\.)?prepare\.(?!(DEVICE|CONTEXT|SEED|BUDGET|Clock|now|load_text|batches)\b)"
    r"|unittest\.mock\b|torch\.(overrides|library|utils\._python_dispatch)\b",
    "clock": r"(time|datetime|signal)\b|.+\.now$"
    r"|(.*\.)?clock\.(?!(progress|pace|remaining|steps|charged|charged_steps)\b)",
    "seed": r"(torch|numpy\.random)\.Generator\b|random\.(Random|SystemRandom|setstate)\b|os\.urandom\b",
    "validation data": r"(trainer\.)?corpus\b",
    "score": r"sys\.(__)?std(out|err)|os\.write\b|contextlib\.redirect_std",
    "network": r"(socket|socketserver|ssl|selectors?|asyncio|http|urllib3?|requests|httpx|aiohttp|websockets?"
    r"|webbrowser|ftplib|smtplib|imaplib|poplib|telnetlib|xmlrpc|paramiko|grpc|zmq|wandb|boto3|huggingface_hub|datasets"
    r"|transformers|timm|torch\.(hub|distributed))\b",
    "process": r"(subprocess|multiprocessing|torch\.multiprocessing|ctypes|cffi|signal|pty|atexit|psutil|posix"
    r"|concurrent\.futures\.Process\w+|torch\.utils\.cpp_extension|resource\.(setrlimit|prlimit)"
    r"|sys\.(settrace|setprofile|addaudithook))\b"
    rf"|{_OS_PROCESS}",
    "files": r"\.(exec|eval|compile|globals|locals|vars|__import__|breakpoint)$|.*\.open$"
    rf"|(?!{_OS_PROCESS})os\.(?!cpu_count\b|sched_)|sys\.(path|modules|meta_path|_getframe|_current_frames)|gc\.get_(obj|ref)"
    r"|(pathlib|shutil|tempfile|glob|fileinput|io|pickle|dill|joblib|cloudpickle|marshal|shelve|dbm|sqlite3|mmap|fcntl"
    r"|zipfile|tarfile|gzip|bz2|lzma|safetensors|h5py|importlib|pkgutil|runpy|zipimport|builtins|inspect"
    r"|torch\.(load|save|serialization|package|jit\.(load|save))|numpy\.(load|save\w*|genfromtxt|memmap))\b",
}
"""What is reached through an import, as `_Names.dotted` writes it."""

_WHOLE = {kind: re.compile(pattern) for kind, pattern in _NAMES.items()}
_FROM_START = {kind: re.compile(pattern) for kind, pattern in _REACHED.items()}
_ORDER = {kind: at for at, kind in enumerate(_REACHED)}

_SETTINGS = re.compile(r"torch\.(backends|_dynamo\.config|_inductor\.config)\b|os\.environ\b")
"""What of an import may be assigned to without patching it."""
_MISSED = re.compile(r".*(eval|finish|seed|clock\.step$)", re.IGNORECASE)
"""What is told when it is gone."""
_MEASURES = re.compile(r"(\w*_)?evaluat\w*|finish")
_RULE = re.compile(r"^\s*---\s*$", re.MULTILINE)
_BREAK = re.compile(r"\r\n?|\n")


class _Sight(NamedTuple):
    """Something of a kind, on the lines from `first` to `last`."""

    kind: CautionKind
    name: str
    first: int
    last: int


def cautions(old: Mapping[str, str], changed: Mapping[str, str], *, metric: str) -> tuple[Caution, ...]:
    """What a person should look at twice of what `changed` adds, changes or removes: one a line and kind.

    Files are path to text; `metric` is the name under which the score is printed. Never raises.
    """
    found = (_of_file(path, old.get(path, ""), changed[path], metric) for path in sorted(changed))
    return tuple(islice(chain.from_iterable(found), AT_MOST))


def _of_file(path: str, old: str, new: str, metric: str) -> Iterator[Caution]:
    before, after = old.split("\n"), new.split("\n")
    added: list[int] = []
    nearest: dict[int, int] = {}  # Of each line that is gone, the line of the new file.
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, before, after).get_opcodes():
        if tag != "equal":
            added += range(j1 + 1, j2 + 1)
            last = min(max(j1 + 1, j2), len(after))
            nearest.update((i + 1, min(j1 + 1 + i - i1, last)) for i in range(i1, i2))
    found: dict[tuple[int, CautionKind], str] = {}
    tree = _parsed(path, new)
    if tree is None:
        sights = [sight for line in added for sight in _words(after[line - 1], line, metric)]
    else:
        sights = list(_Names(tree, new, metric).sights())
    for sight in sights:
        if line := _first_within(added, sight):
            found[line, sight.kind] = after[line - 1].strip()
    tree = tree and _parsed(path, old)
    if tree is not None:
        earlier = [sight for sight in _Names(tree, old, metric).sights() if _MISSED.match(sight.name)]
        gone = Counter((sight.kind, sight.name) for sight in earlier)
        gone -= Counter((sight.kind, sight.name) for sight in sights)
        removed = list(nearest)
        for sight in earlier:
            if gone[sight.kind, sight.name] and (line := _first_within(removed, sight)):
                found.setdefault((nearest[line], sight.kind), f"- {before[line - 1].strip()}")
    for line, kind in sorted(found, key=lambda key: (key[0], _ORDER[key[1]])):
        yield Caution(path, line, kind, found[line, kind][:TEXT_AT_MOST])


def _parsed(path: str, text: str) -> ast.Module | None:
    if path.endswith(".py"):
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # Then words are all there is to go by.
    return None


def _first_within(lines: list[int], sight: _Sight) -> int | None:
    at = bisect_left(lines, sight.first)
    return lines[at] if at < len(lines) and lines[at] <= sight.last else None


@lru_cache(maxsize=4096)
def _kinds(dotted: str, metric: str) -> tuple[CautionKind, ...]:
    """What a name has to do with, written as `_Names.dotted` does."""
    if dotted == ".eval":
        return ("files",)  # The built-in evaluates no model.
    name = dotted.rpartition(".")[2]
    return tuple(
        kind
        for kind, reached in _FROM_START.items()
        if reached.match(dotted) or (kind in _WHOLE and name != metric and _WHOLE[kind].fullmatch(name))
    )


def _said(text: str, metric: str) -> Iterator[CautionKind]:
    """What a string, or a line that is no Python, has to do with."""
    if _RULE.search(text) or re.search(rf"(?<!\w){re.escape(metric)}(?!\w)", text):
        yield "score"
    if "://" in text:
        yield "network"


def _words(text: str, line: int, metric: str) -> Iterator[_Sight]:
    for kind in _said(text, metric):
        yield _Sight(kind, text, line, line)
    for word in re.findall(r"\w[\w.]*\b", text):
        for kind in _kinds(word if "." in word else f"?.{word}", metric):
            yield _Sight(kind, word, line, line)


class _Node(NamedTuple):
    """A node of the tree, the lines it is on, and the function it is in."""

    node: ast.AST
    first: int
    last: int
    function: ast.AST


class _Names:
    """The names of a Python file, and what they stand for."""

    def __init__(self, tree: ast.Module, text: str, metric: str) -> None:
        self._metric = metric
        self._rows = [1]
        """The diff's line of each of Python's, which also parts at lone carriage returns."""
        for found in _BREAK.finditer(text):
            self._rows.append(self._rows[-1] + ("\n" in found[0]))
        self._nodes = list(self._walk(tree))
        self._bound: dict[str, str] = {}
        for node, *_ in self._nodes:
            self._bind(node)

    def sights(self) -> Iterator[_Sight]:
        functions: dict[ast.AST, list[_Node]] = defaultdict(list)
        for seen in self._nodes:
            functions[seen.function].append(seen)
            for kind, name in self._of(seen.node):
                yield _Sight(kind, name, seen.first, seen.last)
        for nodes in functions.values():
            holding = self._holding_the_score([seen.node for seen in nodes])
            for node, first, last, _ in nodes:
                if isinstance(node, ast.Name) and node.id in holding:
                    yield _Sight("score", node.id, first, last)

    def dotted(self, node: ast.AST | None) -> str:
        """`torch.nn.Linear` of `nn.Linear`; after a dot what no import binds, after `?.` what hangs on no name."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        root = self._bound.get(node.id, f".{node.id}") if isinstance(node, ast.Name) else "?"
        return ".".join((root, *reversed(parts)))

    def _walk(self, tree: ast.Module) -> Iterator[_Node]:
        """All but docstrings, parents first. Not recursive: a deep expression must not end the look at the rest."""
        waiting: list[tuple[ast.AST, tuple[int, int] | None, ast.AST]] = [(tree, None, tree)]
        while waiting:
            node, within, function = waiting.pop()
            match node:
                case ast.Expr(value=ast.Constant(value=str())):
                    continue
                case ast.Attribute(end_lineno=int() as last):
                    first = last  # Where its last name stands.
                case ast.expr() | ast.stmt() | ast.alias() | ast.arg() | ast.keyword():
                    first, last = node.lineno, node.end_lineno or node.lineno
                case _:
                    first = last = 0
            if isinstance(node, ast.JoinedStr):
                within = within or (first, last)  # Before Python 3.12 what is in an f-string does not know its line.
            first, last = within or (first, last)
            yield _Node(node, self._row(first), self._row(last), function)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                function = node
            waiting += [(child, within, function) for child in ast.iter_child_nodes(node)][::-1]

    def _row(self, line: int) -> int:
        return self._rows[line - 1] if 0 < line <= len(self._rows) else 0

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=names):
                for name in names:
                    top = name.name.partition(".")[0]
                    self._bound[name.asname or top] = name.name if name.asname else top
            case ast.ImportFrom(module=module, names=names):
                for name in names:
                    self._bound[name.asname or name.name] = f"{module}.{name.name}" if module else name.name
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Name(id=source)) if source in self._bound:
                self._bound.setdefault(target, self._bound[source])
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call(func=called)):
                if self.dotted(called).endswith(".Clock"):
                    self._bound[target] = "clock"

    def _imported(self, dotted: str) -> bool:
        return dotted[0] not in ".?" and dotted.partition(".")[0] != "clock"

    def _of(self, node: ast.AST) -> Iterator[tuple[CautionKind, str]]:
        """What a node has to do with, and the name that says so."""
        match node:
            case ast.Name(id=name, ctx=context):
                dotted = self.dotted(node)
                yield from self._named(dotted)
                if isinstance(context, ast.Store):
                    if name == "print":
                        yield "score", name
                    if re.search(r"\bprepare\b", dotted):
                        yield "evaluation", dotted
            case ast.Attribute(ctx=context):
                dotted = self.dotted(node)
                yield from self._named(dotted)
                if not isinstance(context, ast.Load):
                    yield from self._patched(dotted)
                    if re.match(r"(.*\.)?(clock\.\w+|charged)$", dotted):
                        yield "clock", dotted
            case ast.Subscript(value=value, ctx=ast.Store() | ast.Del()):
                yield from self._patched(self.dotted(value))
            case ast.Call():
                yield from self._called(node)
            case ast.Import(names=names):
                for alias in names:
                    yield from self._named(alias.name, f"?.{alias.asname}")
            case ast.ImportFrom(module=module, names=names):
                for alias in names:
                    yield from self._named(f"{module}.{alias.name}" if module else alias.name, f"?.{alias.asname}")
            case ast.FunctionDef(name="train", args=ast.arguments(args=[ast.arg(arg="self"), *_])):
                yield "evaluation", "self.train"  # Which `eval()` calls.
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield from self._named(f"?.{name}")
                if name == "print":
                    yield "score", name
            case ast.arg(arg=name) | ast.keyword(arg=str() as name):
                yield from self._named(f"?.{name}")
            case ast.Constant(value=str() as text):
                yield from ((kind, text) for kind in _said(text, self._metric))
                if not re.search(r"\s", text):
                    yield from self._named(*(f"?.{word}" for word in re.findall(r"\w+", text)))

    def _named(self, *names: str) -> Iterator[tuple[CautionKind, str]]:
        for dotted in names:
            for kind in _kinds(dotted, self._metric):
                yield kind, dotted

    def _patched(self, dotted: str) -> Iterator[tuple[CautionKind, str]]:
        if self._imported(dotted) and not _SETTINGS.match(dotted):
            yield "evaluation", dotted

    def _called(self, call: ast.Call) -> Iterator[tuple[CautionKind, str]]:
        """A call takes in all its lines: other arguments are another evaluation."""
        dotted = self.dotted(call.func)
        yield from self._named(dotted)
        match dotted, call.args:
            case ".print", _ if any(keyword.arg == "file" for keyword in call.keywords):
                yield "score", dotted
            case ".getattr" | ".setattr" | ".delattr", [thing, name, *_]:
                if not self._imported(reached := self.dotted(thing)):
                    return
                if dotted != ".getattr":
                    yield from self._patched(reached)
                elif isinstance(name, ast.Constant):
                    yield from self._named(f"{reached}.{name.value!s}")
                else:
                    yield "files", reached

    def _holding_the_score(self, nodes: Iterable[ast.AST]) -> set[str]:
        """The names in one function that hold what was measured, or what it was put into."""
        # One word, such as loss, may stand for many things.
        holding = {self._metric} if "_" in self._metric else set()
        for node in nodes:
            match node:
                case ast.Assign(targets=targets, value=ast.expr() as source):
                    pass
                case (
                    ast.AnnAssign(target=target, value=ast.expr() as source)
                    | ast.AugAssign(target=target, value=source)
                    | ast.NamedExpr(target=target, value=source)
                    | ast.For(target=target, iter=source)
                    | ast.comprehension(target=target, iter=source)
                ):
                    targets = [target]
                case _:
                    continue
            if any(self._measured(part, holding) for part in ast.walk(source)):
                holding |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        return holding

    def _measured(self, node: ast.AST, holding: set[str]) -> bool:
        if isinstance(node, ast.Call):
            return bool(_MEASURES.fullmatch(self.dotted(node.func).rpartition(".")[2]))
        return isinstance(node, ast.Name) and node.id in holding
