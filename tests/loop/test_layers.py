"""Within the engine too: arrows run downward, what is called pure is pure, and a viewer loads no engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LOOP = Path(__file__).parents[2] / "loop"
FLOORS = (
    ("remote.daemon",),
    ("remote.server",),
    ("inbox",),
    ("engine",),
    ("lane", "drift", "proposer"),
    ("desk",),
    ("agents.search", "agents.openai", "agents.acp"),
    ("agents.responses", "agents.session"),
    ("agents.chat",),
    ("agents.reply",),
    ("agents.prompt", "agents.worktree"),
    ("agents",),
    ("archive", "caps", "briefing"),
    ("trials.local", "trials.telemetry", "workspace", "results", "judge", "audit", "remote.client"),
    ("trials.sandbox",),
    (
        "trials.runner",
        "trials.confine",
        "trials.output",
        "study",
        "remote.wire",
        "guard",
        "cautions",
        "constants",
        "patch",
        "refusals",
        "breakpoints",
        "failures",
    ),
    ("state", "journal", "config", "commands"),
    ("noise",),
    ("events",),
)
"""From the top down; a module may import from any floor below its own."""
FLOOR = {name: at for at, names in enumerate(FLOORS) for name in names}
PURE = (
    "events",
    "commands",
    "state",
    "noise",
    "judge",
    "drift",
    "audit",
    "guard",
    "cautions",
    "constants",
    "patch",
    "refusals",
    "breakpoints",
    "briefing",
    "failures",
    "caps",
    "trials.output",
    "remote.wire",
)
IMPURE = {
    "os",
    "pathlib",
    "time",
    "datetime",
    "random",
    "subprocess",
    "socket",
    "shutil",
    "tempfile",
    "threading",
    "git",
}
SOURCES = {".".join(path.relative_to(LOOP).with_suffix("").parts): path for path in LOOP.rglob("*.py")}
MODULES = {name.removesuffix(".__init__"): path for name, path in SOURCES.items() if path.read_text().strip()}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: names from the root are the rule"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_module_has_its_floor():
    assert set(FLOOR) == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_the_floors_below_it(name):
    below = {found.removeprefix("loop.") for found in imports(MODULES[name]) if found.startswith("loop.")}
    # `make` is where a spec becomes a back-end, so it names them; it does so when asked, not when imported.
    allowed = set(FLOORS[FLOOR["agents.search"]]) if name == "agents" else set()
    wrong = {found for found in below & set(FLOOR) - allowed if FLOOR[found] <= FLOOR[name]}
    assert not wrong, f"loop.{name} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("name", PURE)
def test_what_is_called_pure_can_do_nothing_but_compute(name):
    tree = ast.parse(MODULES[name].read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}
    assert not {found.split(".")[0] for found in imports(MODULES[name])} & IMPURE


@pytest.mark.parametrize("name", ["remote.client", "remote.wire", "remote.daemon", "state", "events", "commands"])
def test_a_viewer_loads_no_engine_nor_what_it_needs(name):
    code = f"import sys, loop.{name}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=LOOP.parent)
    loaded = set(done.stdout.split())
    assert f"loop.{name}" in loaded
    assert not loaded & {"torch", "openai", "git", "optuna", "numpy", "watchfiles", "psutil", "textual", "loop.engine"}
