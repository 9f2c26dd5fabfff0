"""On real repositories: what is the person's stays as it is, and what was tried is never lost."""

from __future__ import annotations

import subprocess

import pytest

from loop.workspace import Workspace, WorkspaceError


def git(root, *words):
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout.rstrip()


def experiment(workspace, number, text):
    commit = workspace.commit(workspace.head(), {"train.py": text}, f"{number:04d}: x")
    workspace.record(number, commit)
    return commit


def test_experiments_do_not_touch_what_is_the_persons(repository):
    (repository / "stashed").write_text("s")
    git(repository, "add", "stashed")
    git(repository, "stash")
    (repository / "train.py").write_text("edited, not committed\n")
    (repository / "staged").write_text("staged\n")
    git(repository, "add", "staged")
    (repository / "untracked").write_text("u")
    watched = [("status", "--porcelain"), ("stash", "list"), ("rev-parse", "HEAD"), ("ls-files", "--stage"), ("diff",)]
    before = [git(repository, *words) for words in watched]
    workspace = Workspace(repository, "t")
    head = workspace.head()
    kept, dropped = experiment(workspace, 1, "LR = 1\n"), experiment(workspace, 2, "LR = 2\n")
    workspace.create_branch(head)
    workspace.advance(kept, head)
    assert [git(repository, *words) for words in watched] == before
    assert git(repository, "rev-parse", "labtop/t") == kept
    assert workspace.recorded() == {1: kept, 2: dropped}
    git(repository, "gc", "--prune=now", "--quiet")
    assert git(repository, "show", "refs/labtop/t/0002:train.py") == "LR = 2"
    assert git(repository, "fsck", "--strict") == ""


def test_a_commit_changes_the_named_files_alone_and_keeps_their_mode(repository):
    (repository / "train.py").chmod(0o755)
    git(repository, "commit", "-qam", "runnable")
    workspace = Workspace(repository, "t")
    commit = workspace.commit(workspace.head(), {"train.py": "é = 1\r\n", "new/file.py": ""}, "two")
    assert git(repository, "diff", "--name-status", "HEAD", commit) == "A\tnew/file.py\nM\ttrain.py"
    assert git(repository, "ls-tree", commit, "train.py").startswith("100755")
    assert workspace.read(commit, "train.py") == "é = 1\r\n"
    assert workspace.read(commit, "gone.py") is None


def test_a_branch_that_somebody_moved_is_not_moved_back(repository):
    workspace = Workspace(repository, "t")
    head = workspace.head()
    workspace.create_branch(head)
    git(repository, "commit", "-q", "--allow-empty", "-m", "theirs")
    git(repository, "update-ref", "refs/heads/labtop/t", "HEAD")
    with pytest.raises(WorkspaceError, match="where the study left it"):
        workspace.advance(experiment(workspace, 1, "x = 1\n"), head)
    assert git(repository, "rev-parse", "labtop/t") == git(repository, "rev-parse", "HEAD")


def test_moving_a_branch_twice_is_moving_it_once(repository):
    workspace = Workspace(repository, "t")
    head = workspace.head()
    new = experiment(workspace, 1, "x = 1\n")
    workspace.create_branch(head)
    workspace.advance(new, head)
    workspace.advance(new, head)
    assert workspace.branch_head() == new


def test_a_trial_gets_the_exact_tree(repository, tmp_path):
    workspace = Workspace(repository, "t")
    commit = experiment(workspace, 1, "LR = 3\n")
    (repository / "untracked").write_text("not in the tree")
    target = tmp_path / "source"
    target.mkdir()
    (target / "left over").write_text("of a trial that died")
    workspace.export(commit, target)
    assert sorted(path.name for path in target.iterdir()) == [".gitignore", "labtop.toml", "program.md", "train.py"]
    assert (target / "train.py").read_text() == "LR = 3\n"
    assert (repository / "train.py").read_text() != "LR = 3\n"


def test_what_is_not_committed_is_named(repository):
    workspace = Workspace(repository, "t")
    assert workspace.uncommitted(["train.py", "program.md"]) == []
    (repository / "train.py").write_text("x")
    assert workspace.uncommitted(["train.py", "program.md"]) == ["train.py"]


def test_a_repository_that_cannot_carry_a_study_is_refused_with_advice(repository, tmp_path):
    with pytest.raises(WorkspaceError, match="git init"):
        Workspace(tmp_path, "t")
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    with pytest.raises(WorkspaceError, match="no commit yet"):
        Workspace(empty, "t")
    Workspace(repository, "t").create_branch(git(repository, "rev-parse", "HEAD"))
    git(repository, "switch", "-q", "labtop/t")
    with pytest.raises(WorkspaceError, match="git switch -"):
        Workspace(repository, "t")


def test_a_lock_that_a_killed_engine_left_does_not_stop_the_next(repository):
    workspace = Workspace(repository, "t")
    workspace.create_branch(workspace.head())
    theirs = repository / ".git" / "index.lock"
    lock = repository / ".git" / "refs" / "heads" / "labtop" / "t.lock"
    lock.touch()
    theirs.touch()
    again = Workspace(repository, "t")
    again.advance(experiment(again, 1, "x = 1\n"), again.head())
    assert again.cleared == ("refs/heads/labtop/t.lock",) and not workspace.cleared
    assert theirs.exists(), "a lock of the person's own git is none of the engine's"


def test_an_experiment_stands_on_its_base_and_shows_as_its_diff(repository):
    workspace = Workspace(repository, "t")
    commit = experiment(workspace, 1, "LR = 1\n")
    assert git(repository, "rev-parse", f"{commit}^") == workspace.head()
    assert git(repository, "log", "-1", "--format=%an <%ae> %s", commit) == "labtop <labtop@localhost> 0001: x"
    diff = workspace.diff(workspace.head(), commit)
    (repository / "out.diff").write_text(diff)
    git(repository, "apply", "out.diff")
    assert (repository / "train.py").read_text() == "LR = 1\n"


def test_hooks_and_signing_of_the_person_do_not_run(repository, tmp_path):
    hook = repository / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hook-ran\n")
    hook.chmod(0o755)
    git(repository, "config", "commit.gpgsign", "true")
    git(repository, "config", "gpg.program", "/bin/false")
    workspace = Workspace(repository, "t")
    workspace.create_branch(workspace.head())
    workspace.advance(experiment(workspace, 1, "LR = 1\n"), workspace.head())
    assert not (tmp_path / "hook-ran").exists()


def test_it_stays_in_its_repository_whatever_a_hook_left_in_the_environment(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "stray-index"))
    workspace = Workspace(repository, "t")
    head, uncommitted = workspace.head(), workspace.uncommitted(["train.py"])
    monkeypatch.delenv("GIT_DIR", raising=False)
    monkeypatch.delenv("GIT_INDEX_FILE", raising=False)
    assert head == git(repository, "rev-parse", "HEAD") != git(other, "rev-parse", "HEAD")
    assert uncommitted == []


def test_two_studies_of_one_repository_do_not_meet(repository):
    one, two = Workspace(repository, "one"), Workspace(repository, "two")
    commit = experiment(one, 1, "x = 1\n")
    one.create_branch(commit)
    assert two.recorded() == {} and two.branch_head() is None and one.recorded() == {1: commit}


def test_a_branch_that_exists_elsewhere_is_not_taken_over(repository):
    workspace = Workspace(repository, "t")
    theirs = experiment(workspace, 1, "theirs = 1\n")
    git(repository, "branch", "labtop/t", theirs)
    with pytest.raises(WorkspaceError, match=f"is at {theirs}"):
        workspace.create_branch(workspace.head())
    assert workspace.branch_head() == theirs
