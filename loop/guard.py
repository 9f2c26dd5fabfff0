"""What a proposal may touch, checked before it costs a trial. Pure."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Mapping

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
    tried: Mapping[str, str],
) -> None:
    """Refuse what may not be run. Files are path to text; `tried` maps fingerprints to what became of them.

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
    if (earlier := tried.get(fingerprint({**old, **changed}))) is not None:
        raise Refused(f"this repeats experiment {earlier}; propose something that was not tried")


def fingerprint(files: Mapping[str, str]) -> str:
    """Equal for files that are the same program: comments, formatting and the spelling of constants do not count."""
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


class _Fold(ast.NodeTransformer):
    """Arithmetic on numbers becomes its value, and 2.0 the same as 2, so that `2**3` equals `8`."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, float) and node.value.is_integer():
            return ast.copy_location(ast.Constant(int(node.value)), node)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        match node:
            case ast.BinOp(
                left=ast.Constant(value=int() | float() as a),
                op=ast.Pow() | ast.Mult() as operator,
                right=ast.Constant(value=int() | float() as b),
            ) if abs(a) <= 2**20 and abs(b) <= 64:
                try:
                    value = a**b if isinstance(operator, ast.Pow) else a * b
                except ArithmeticError:
                    return node
                return self.visit_Constant(ast.copy_location(ast.Constant(value), node))
        return node
