"""The tunable constants at the top of a Python file: found, and set without touching anything else of it. Pure."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

import msgspec

from loop.events import Change

Value = int | float | bool | str

_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What ast.parse raises: the last two where an expression is nested too deeply."""
_OPTIONS = re.compile(r"one of:\s*(.+?)\s*(?:—|$)")
_RANGE = re.compile(r"([-+\d.e]+)\s*\.\.\s*([-+\d.e]+)\s*(\(log\))?", re.IGNORECASE)


class Constant(msgspec.Struct, frozen=True, kw_only=True):
    """An assignment `NAME = literal` before the file's first function or class.

    Where it depends on the device, `NAME = {"cpu": 2, "cuda": 8}[…]`, the device's own entry is the literal.
    `start` and `end` are byte offsets of the literal. Hints come from the comment behind it: `# one of: 32, 64 — why`
    gives `options`, `# 0.01..0.2 (log) — why` gives `low`, `high` and `log`.
    """

    name: str
    value: Value
    text: str
    line: int
    start: int
    end: int
    comment: str = ""
    options: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    log: bool = False


def find_constants(source: str, device: str = "cpu") -> list[Constant]:
    """The constants of `source` in order, as they are on `device`; none where it does not parse.

    Names assigned twice are left out.
    """
    try:
        tree = ast.parse(source)
    except _UNREADABLE:
        return []
    raw = source.encode()
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    assigned: dict[str, int] = {}
    found: list[Constant] = []
    in_settings = True
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            in_settings = False
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or not isinstance(node.targets[0], ast.Name):
            continue
        name, value = node.targets[0].id, _entry_for(device, node.value)
        assigned[name] = assigned.get(name, 0) + 1
        literal = _literal(value) if value else None
        if literal is None or not in_settings or not name.isupper() or value is None or value.end_lineno is None:
            continue
        start = starts[value.lineno - 1] + value.col_offset
        end = starts[value.end_lineno - 1] + (value.end_col_offset or 0)
        rest = raw[end : starts[value.end_lineno]].decode()
        comment = rest.partition("#")[2].strip()
        found.append(_with_hints(name, literal, raw[start:end].decode(), node.lineno, start, end, comment))
    return [constant for constant in found if assigned[constant.name] == 1]


def set_constants(source: str, values: Mapping[str, str], device: str = "cpu") -> str:
    """`source` with new literals for the named constants. Raises: KeyError for a name that is no constant of it."""
    constants = {constant.name: constant for constant in find_constants(source, device)}
    raw = source.encode()
    for constant in sorted((constants[name] for name in values), key=lambda constant: -constant.start):
        raw = raw[: constant.start] + values[constant.name].encode() + raw[constant.end :]
    return raw.decode()


def constant_changes(old: str, new: str, device: str = "cpu") -> tuple[Change, ...]:
    """The constants that both sources have and that differ on `device`, as written."""
    before = {constant.name: constant.text for constant in find_constants(old, device)}
    return tuple(
        Change(constant.name, before[constant.name], constant.text)
        for constant in find_constants(new, device)
        if before.get(constant.name, constant.text) != constant.text
    )


def literal(value: Value) -> str:
    """`value` as a person would write it: floats to three significant digits."""
    if isinstance(value, float):
        text = f"{value:.3g}"
        return text if "." in text or "e" in text else f"{text}.0"
    return repr(value)


def parse(text: str) -> Value | None:
    """The value of a literal as written, or None where it is none that can be searched."""
    try:
        return _literal(ast.parse(text.strip(), mode="eval").body)
    except _UNREADABLE:
        return None


def _entry_for(device: str, node: ast.expr) -> ast.expr | None:
    """The entry of a `{"cpu": 2, "cuda": 8}[…]` that holds on `device`, such as "cuda:1"; any other node as it is."""
    match node:
        case ast.Subscript(value=ast.Dict(keys=keys, values=values)):
            kind = device.partition(":")[0]
            entries = zip(keys, values, strict=True)
            return next((value for key, value in entries if isinstance(key, ast.Constant) and key.value == kind), None)
    return node


def _literal(node: ast.expr) -> Value | None:
    """The value of a literal or of arithmetic on numbers, such as `-1` or `2**14`; None for anything else."""
    try:
        value = _value(node)
    except (ArithmeticError, RecursionError):
        return None
    return value if isinstance(value, Value) else None


def _value(node: ast.expr) -> object:
    match node:
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _value(operand)
            return -inner if isinstance(inner, int | float) else None
        case ast.BinOp(left=left, op=operator, right=right):
            a, b = _value(left), _value(right)
            if isinstance(a, int | float) and isinstance(b, int | float):
                match operator:
                    case ast.Mult():
                        return a * b
                    case ast.Pow() if abs(a) <= 1024 and abs(b) <= 64:
                        return a**b
                    case ast.Div() if b:
                        return a / b
    return None


def _with_hints(name: str, value: Value, text: str, line: int, start: int, end: int, comment: str) -> Constant:
    plain = Constant(name=name, value=value, text=text, line=line, start=start, end=end, comment=comment)
    try:
        if found := _OPTIONS.search(comment):
            options = tuple(ast.literal_eval(option.strip()) for option in found[1].split(","))
            return msgspec.structs.replace(plain, options=options if value in options else (value, *options))
        if found := _RANGE.match(comment):
            return msgspec.structs.replace(plain, low=float(found[1]), high=float(found[2]), log=bool(found[3]))
    except (ValueError, SyntaxError):
        pass  # A comment that only looks like a hint.
    return plain
