"""The trainer's modules on a CPU with the tiny profile, whatever this machine has; and its text, prepared once."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a trial: also what the modules read when they are imported."""
    values = {
        "LABTOP_DEVICE": "cpu",
        "LABTOP_PROFILE": "tiny",
        "LABTOP_BUDGET": "1",
        "LABTOP_SEED": "1",
        "LABTOP_CORPUS": "sotu",
        "LABTOP_CACHE": str(tmp_path_factory.mktemp("cache")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        importlib.import_module("trainer.prepare")
        importlib.import_module("trainer.train")
        yield values


@pytest.fixture
def environment(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


@pytest.fixture(scope="session")
def prepare(settings: dict[str, str]) -> ModuleType:
    return importlib.import_module("trainer.prepare")


@pytest.fixture(scope="session")
def train(settings: dict[str, str]) -> ModuleType:
    return importlib.import_module("trainer.train")


@pytest.fixture(scope="session")
def text(prepare: ModuleType):
    return prepare.load_text(quiet=True)


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A folder of a person's own text."""
    folder = tmp_path / "stories"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:03d}.txt").write_text(f"Story {number}. " + "The lamp was lit and the tide came in. " * 40)
    return folder
