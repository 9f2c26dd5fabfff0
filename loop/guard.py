"""What a proposal may touch, checked before it costs a trial. Pure."""

from __future__ import annotations

import ast
import hashlib
import operator
import re
from collections.abc import Callable, Collection, Mapping

from loop.state import Experiment

LARGEST_FILE = 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Lone surrogates too: JSON can hold them, and no file."""


class Refused(ValueError):
    """The proposal costs no trial. The message is for the agent: why, and what would do."""


def check(
    old: Mapping[str, str],
    changed: Mapping[str, str],
    *,
    editable: Collection[str],
    frozen: Collection[str],
    tried: Mapping[str, Experiment],
    repeats: bool = False,
) -> str:
    """Refuse what may not be run. Files are path to text; `tried` maps fingerprints to their experiments.

    `repeats`: what was tried before may be tried again. Returns the fingerprint of the files as they then stand.

    Raises: Refused.
    """
    for path, text in changed.items():
        if path not in editable:
            why = "is frozen" if path in frozen else "is not an editable file"
            raise Refused(f"{path} {why}; editable: {', '.join(editable)}")
        if found := _CONTROL.search(text):
            raise Refused(f"{path} would hold the control character {found[0]!r}")
        if len(text.encode()) > LARGEST_FILE:
            raise Refused(f"{path} would be larger than {LARGEST_FILE >> 20} MiB")
        if path.endswith(".py"):
            try:
                ast.parse(text)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                raise Refused(f"{path}, line {line}: {getattr(error, 'msg', error)}") from None
            except (RecursionError, MemoryError):
                raise Refused(f"{path} holds an expression that is too deeply nested for Python") from None
    mark = fingerprint({**old, **changed})
    if not repeats and (earlier := tried.get(mark)) is not None:
        fate = f"{earlier.number:04d} ({earlier.verdict}: {earlier.reason})"
        raise Refused(f"this repeats experiment {fate}; propose something that was not tried")
    return mark


def fingerprint(files: Mapping[str, str]) -> str:
    """Equal for files that are the same program, whatever their comments, docstrings, layout and spelling of constants.

    A file that is no Python counts to the letter.
    """
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path}\0{_normal_form(path, files[path])}\0".encode())
    return digest.hexdigest()[:16]


def _normal_form(path: str, text: str) -> str:
    if path.endswith(".py"):
        try:
            return ast.dump(_Fold().visit(ast.parse(text)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # Then its text is all there is to compare.
    return text


_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LARGEST = 2.0**1000
_LARGEST_BASE, _LARGEST_POWER = 2**20, 64
"""Powers grow fast; beyond these they are left as they stand."""


class _Fold(ast.NodeTransformer):
    """Arithmetic on numbers becomes its value, and 2.0 the same as 2, so that `2**3` equals `8`; docstrings go."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if not isinstance(node.value, float):
            return node
        value = float(f"{node.value:.15g}")  # 3 * 0.1 is 0.3 but for its last digit.
        return ast.Constant(int(value) if value.is_integer() else value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
                return ast.Constant(-value)
            case ast.UnaryOp(op=ast.UAdd(), operand=ast.Constant(value=int() | float() as value)):
                return ast.Constant(+value)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.BinOp(
                left=ast.Constant(value=int() | float() as a), op=sign, right=ast.Constant(value=int() | float() as b)
            ) if type(sign) in _OPERATORS and max(abs(a), abs(b)) <= _LARGEST:
                if isinstance(sign, ast.Pow) and (abs(a) > _LARGEST_BASE or abs(b) > _LARGEST_POWER):
                    return node
                try:
                    return self.visit_Constant(ast.Constant(_OPERATORS[type(sign)](a, b)))
                except ArithmeticError:
                    pass
        return node
