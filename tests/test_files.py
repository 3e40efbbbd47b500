"""What is written is whole or absent, also when it has folders in it."""

from pathlib import Path

import pytest

from sonar.files import whole_folder, write_whole_text


def test_a_folder_with_folders_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "corpus"
    with pytest.raises(RuntimeError, match="half-way"), whole_folder(target) as partial:
        (partial / "audio").mkdir()
        (partial / "audio" / "a.txt").write_text("a", encoding="utf-8")
        raise RuntimeError("half-way")
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target) as partial:
        (partial / "audio").mkdir()
        (partial / "audio" / "a.txt").write_text("a", encoding="utf-8")
        assert not target.exists()
    assert (target / "audio" / "a.txt").read_text(encoding="utf-8") == "a"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_that_fails_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "baseline.json"
    write_whole_text(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sonar.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]
