"""Arrows run downward only: who may import whom, read from the code, and what an import must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("loop", "tui", "trainer", "video_recycle", "benchmarks", "tests")
MAY = {"loop": {"loop"}, "trainer": {"trainer"}, "video_recycle": {"video_recycle"}, "tui": {"tui", "loop"}}
COCKPIT_MAY = (
    "loop.remote.client",
    "loop.remote.wire",
    "loop.state",
    "loop.events",
    "loop.commands",
    "loop.refusals",
    "loop.trials.output",
)
BOTH_SIDES = ("cli.py", "plain.py", "doctor.py")
"""The command line, which knows the engine's side too."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("room", MAY)
def test_a_room_imports_only_what_stands_below_it(room):
    for path in files(room):
        wrong = {name for name in imports(path) if name.split(".")[0] in ROOMS and name.split(".")[0] not in MAY[room]}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_the_cockpit_is_a_client_and_nothing_more():
    modules = {str(path.relative_to(ROOT)).removesuffix(".py").replace("/", ".") for path in files("loop")}
    for path in files("tui"):
        if path.name in BOTH_SIDES:
            continue
        wrong = {name for name in imports(path) if name in modules and name not in COCKPIT_MAY}
        assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    "module",
    ["loop.remote.client", "loop.remote.daemon", "loop.state", "loop.engine", "loop.agents", "tui.app", "tui.cli"],
)
def test_an_import_loads_no_heavy_library(module):
    heavy = ("torch", "openai", "optuna", "transformers", "tiktoken")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["runner", "confine"])
def test_what_a_trial_stands_on_needs_nothing_but_the_standard_library(name):
    path = ROOT / "loop" / "trials" / f"{name}.py"
    assert {name.split(".")[0] for name in imports(path)} <= sys.stdlib_module_names
