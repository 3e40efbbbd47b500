"""A result says what it was made with."""

import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from sonar import provenance as module
from sonar.provenance import provenance


def test_versions_are_those_installed() -> None:
    found = provenance()
    assert {name: found[name] for name in module.PACKAGES} == {name: version(name) for name in module.PACKAGES}


def test_commit_and_dirty_flag_are_those_of_the_source_tree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    monkeypatch.setattr(module, "__file__", str(tmp_path / "sonar" / "provenance.py"))
    assert provenance()["commit"] is None and provenance()["dirty"] is None
    git("init")
    (tmp_path / "a").write_text("a", encoding="utf-8")
    git("add", "a")
    git("commit", "-m", "a")
    assert (provenance()["commit"], provenance()["dirty"]) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "a").write_text("b", encoding="utf-8")
    assert provenance()["dirty"] is True
