"""Open the study of error recycling: a repository of its own, with everything in it that an experiment sees.

python -m video_recycle study my_study && labtop run -C my_study
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
OWN = ("labtop.toml", "program.md")
"""What stands at the top of the repository."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example: python -m video_recycle study my_study && labtop run -C my_study --device cpu"
    parser.add_argument("folder", type=Path, help="where; it must not be there yet, or be empty")


def main(asked: argparse.Namespace) -> int:
    folder: Path = asked.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        print(f"{folder} is there already: name a new folder, or go on with: labtop run -C {folder}", file=sys.stderr)
        return 1
    make(folder)
    print(f"the study is in {folder}; edit its program.md, then: labtop run -C {folder}")
    return 0


def make(folder: Path) -> None:
    """A repository in `folder` with this package, the study's settings and its program.md, committed."""
    import git

    # A trial sees its own copy of the repository and the installed packages, not the place this one is developed in.
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", *OWN))
    for name in OWN:
        shutil.copy(Path(__file__).parent / name, folder / name)
    (folder / ".gitignore").write_text(".labtop/\n__pycache__/\n")
    with git.Repo.init(folder, initial_branch="main") as repository:
        repository.git.add("--all")
        who = git.Actor("labtop", "labtop@localhost")
        repository.index.commit("The study of error recycling", author=who, committer=who)
