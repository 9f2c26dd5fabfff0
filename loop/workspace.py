"""Git by plumbing alone: commits, refs, exported copies. The person's checkout, index, HEAD, stash stay untouched."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import git

ZERO = "0" * 40

_SETTINGS = (
    "gc.auto=0",
    "maintenance.auto=false",
    "core.fsync=all",
    "commit.gpgsign=false",
    "core.hooksPath=/dev/null",
    "core.quotePath=false",
)
_ENVIRONMENT = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
    "GIT_AUTHOR_NAME": "labtop",
    "GIT_AUTHOR_EMAIL": "labtop@localhost",
    "GIT_COMMITTER_NAME": "labtop",
    "GIT_COMMITTER_EMAIL": "labtop@localhost",
}


LOCKED = re.compile(r"Unable to create '([^']+\.lock)': File exists")
LOCK_PATIENCE = 5.0
"""Seconds that another git may hold a lock before it is told."""


class WorkspaceError(Exception):
    """Git cannot do what the study needs; the message says why and what to do."""


class GitFailed(WorkspaceError):
    """One git command failed."""


class Workspace:
    """The study's commits in the person's repository: `refs/heads/labtop/<tag>` and `refs/labtop/<tag>/<number>`."""

    def __init__(self, root: Path, tag: str) -> None:
        """Raises: WorkspaceError where `root` is no repository that can carry the study."""
        # A git hook or a test runner may have left these pointing at another repository.
        for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
            os.environ.pop(name, None)
        try:
            self._repo = git.Repo(root)
        except git.InvalidGitRepositoryError:
            raise WorkspaceError(
                f"{root} is not the top of a git repository; run `git init` and commit there first"
            ) from None
        self._branch = f"refs/heads/labtop/{tag}"
        self._refs = f"refs/labtop/{tag}"
        try:
            self.head()
        except GitFailed:
            raise WorkspaceError(f"{root} has no commit yet; commit the files of the study first") from None
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            if line == f"branch {self._branch}":
                raise WorkspaceError(
                    f"the branch labtop/{tag} is checked out, and the study moves it; leave it with: git switch -"
                )
        self.cleared = self._clear_locks()
        """The stale locks that were removed."""

    def head(self) -> str:
        """The commit that the person's HEAD stands on."""
        return self._git("rev-parse", "--verify", "HEAD^{commit}")

    def uncommitted(self, paths: Sequence[str]) -> list[str]:
        """Those of `paths` that differ from HEAD, or are not in it."""
        lines = self._git("status", "--porcelain", "--no-renames", "-uall", "--", *paths).splitlines()
        return [line[3:] for line in lines]

    def branch_head(self) -> str | None:
        """The commit of the study's branch, or None before it exists."""
        return self._git("rev-parse", "--quiet", "--verify", self._branch, with_exceptions=False) or None

    @property
    def storage(self) -> Path:
        """Where git keeps what it writes."""
        return Path(self._repo.common_dir)

    def create_branch(self, commit: str) -> None:
        """Raises: WorkspaceError where the branch exists on another commit."""
        self.advance(commit, ZERO)

    def advance(self, new: str, old: str) -> None:
        """Move the branch from `old` to `new`. Raises: WorkspaceError where somebody else has moved it."""
        try:
            self._git("update-ref", self._branch, new, old)
        except GitFailed as error:
            now = self.branch_head() or ZERO
            if now not in (new, old):
                raise WorkspaceError(f"{self._branch} is at {now}, not at {old[:7]} where the study left it") from error
            if now != new:
                raise

    def record(self, number: int, commit: str) -> None:
        """Make experiment `number` reachable for good."""
        self._git("update-ref", f"{self._refs}/{number:04d}", commit)

    def recorded(self) -> dict[int, str]:
        """The commit of each recorded experiment."""
        lines = self._git("for-each-ref", "--format=%(refname:lstrip=-1) %(objectname)", f"{self._refs}/").splitlines()
        return {int(number): commit for number, commit in (line.split() for line in lines)}

    def commit(self, base: str, files: Mapping[str, str], message: str) -> str:
        """A commit on `base` with `files` (path to text) in place of what stands there. No ref moves."""
        with _temporary_index() as environment:
            self._git("read-tree", base, env=environment)
            entries = []
            for path, text in files.items():
                blob = self._git("hash-object", "-w", "--stdin", istream=_stream(text))
                listed = self._git("ls-files", "--stage", "--", path, env=environment)
                mode = listed.split()[0] if listed else "100644"
                entries.append(f"{mode} {blob}\t{path}\n")
            self._git("update-index", "--add", "--index-info", env=environment, istream=_stream("".join(entries)))
            tree = self._git("write-tree", env=environment)
        return self._git("commit-tree", tree, "-p", base, istream=_stream(message))

    def read(self, commit: str, path: str) -> str | None:
        """The text of a file at `commit`; None where there is none."""
        try:
            return self._git("cat-file", "blob", f"{commit}:{path}", strip_newline_in_stdout=False)
        except GitFailed:
            return None

    def diff(self, base: str, commit: str) -> str:
        """The change from `base` to `commit` in git's unified form."""
        return self._git("diff", "--no-color", "--no-ext-diff", base, commit, strip_newline_in_stdout=False)

    def patched(self, base: str, diff: str) -> dict[str, str]:
        """The files that a unified diff against `base` changes, path to new text. Raises: WorkspaceError."""
        with _temporary_index() as environment:
            self._git("read-tree", base, env=environment)
            # People edit diffs by hand and do not count the lines of their hunks anew.
            patch = _stream(diff if diff.endswith("\n") else f"{diff}\n")
            self._git("apply", "--cached", "--recount", "-", env=environment, istream=patch)
            changed = self._git("diff", "--cached", "--name-only", "-z", base, env=environment).split("\0")
            tree = self._git("write-tree", env=environment)
        texts = {path: self.read(tree, path) for path in changed if path}
        if gone := [path for path, text in texts.items() if text is None]:
            raise WorkspaceError(f"it removes {', '.join(gone)}")
        return {path: text for path, text in texts.items() if text is not None}

    def export(self, commit: str, folder: Path) -> None:
        """The exact tree of `commit` as files in `folder`, made anew."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with _temporary_index() as environment:
            self._git("read-tree", commit, env=environment)
            self._git("checkout-index", "--all", f"--prefix={folder}/", env=environment)

    def worktree(self, commit: str, folder: Path) -> None:
        """A repository of its own in `folder`, made anew, with the files of `commit` to work on.

        It reads the objects of the person's repository and shares nothing else with it: whatever is done with git in
        there reaches no ref, no index and no stash of theirs.
        """
        shutil.rmtree(folder, ignore_errors=True)
        self._git("init", "--quiet", "--template=", str(folder))
        objects = Path(self._repo.common_dir).resolve() / "objects"
        (folder / ".git" / "objects" / "info").mkdir(parents=True, exist_ok=True)
        (folder / ".git" / "objects" / "info" / "alternates").write_text(f"{objects}\n")
        self._git("-C", str(folder), "checkout", "--quiet", "-B", "proposal", commit)

    def _git(self, *arguments: str, env: Mapping[str, str] = {}, **options: Any) -> str:
        command = ["git", *(part for setting in _SETTINGS for part in ("-c", setting)), *arguments]
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                return str(self._repo.git.execute(command, env={**_ENVIRONMENT, **env}, **options))
            except git.GitCommandError as error:
                said = " ".join(str(error.stderr).removeprefix("\n  stderr: ").strip(" '").split())
                locked = LOCKED.search(said)
                if locked is None or "istream" in options:
                    raise GitFailed(f"git {arguments[0]} failed: {said}") from error
                if time.monotonic() > deadline:
                    lock = locked[1] or "a ref of the study"
                    raise GitFailed(
                        f"another git holds {lock}; let it end, or remove that file where none runs"
                    ) from error
            time.sleep(0.2)

    def _clear_locks(self) -> tuple[str, ...]:
        """Locks that a killed engine left on the study's own refs; nobody else's are touched."""
        common = Path(self._repo.common_dir)
        stale = [common / f"{self._branch}.lock", *(common / self._refs).glob("*.lock")]
        stale = [lock for lock in stale if lock.exists()]
        for lock in stale:
            lock.unlink(missing_ok=True)
        return tuple(str(lock.relative_to(common)) for lock in stale)


@contextlib.contextmanager
def _temporary_index() -> Any:
    with tempfile.TemporaryDirectory(prefix="labtop-index-") as folder:
        yield {"GIT_INDEX_FILE": str(Path(folder) / "index")}


def _stream(text: str) -> Any:
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - git reads it by its descriptor; closed with the last reference
    stream.write(text.encode())
    stream.seek(0)
    return stream
