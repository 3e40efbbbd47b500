"""`sonar data import`: what it writes, says and refuses; and the table of the documentation."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from published import TREES, write_noise

from sonar.data.importers import IMPORTERS
from sonar.data.manifest import read_manifest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sonar(run_sonar: Run) -> Run:
    """Run `sonar data import ...`; gives its exit status, output and errors."""
    return partial(run_sonar, "data", "import")


def test_a_corpus_becomes_a_manifest_with_the_chosen_fold(sonar: Run, tmp_path: Path) -> None:
    tree = TREES["esc50"](tmp_path / "ESC-50")
    out = tmp_path / "m.csv"
    status, said, _ = sonar("esc50", tree.path, "--out", out, "--domain", "env", "--fold", 2)
    assert status == 0
    assert said.startswith("10 clips, 0.00 h; 0 files quarantined")
    clips = read_manifest(out)
    assert {clip.group for clip in clips if clip.split == "test"} == {"esc50/200032"}
    assert {(clip.corpus, clip.domain) for clip in clips} == {("esc50", "env")}


def test_columns_and_the_folder_to_unpack_to_reach_the_importer(sonar: Run, tmp_path: Path) -> None:
    tree = TREES["huggingface"](tmp_path)
    arguments = ("huggingface", tree.path, "--out", tmp_path / "m.parquet", "--column", "group=speaker")
    status, _, errors = sonar(*arguments)
    assert (status, "--extract-to" in errors) == (2, True)
    status, said, _ = sonar(*arguments, "--extract-to", tmp_path / "audio")
    assert status == 0
    assert "note: no official split for dev: dealt from the training part, by group" in said.splitlines()
    assert {clip.group for clip in read_manifest(tmp_path / "m.parquet") if clip.split == "test"} == {
        "data/test 0",
        "data/test 1",
    }


def test_quarantined_files_are_named_and_too_many_stop_it(sonar: Run, tmp_path: Path) -> None:
    tree = TREES["emodb"](tmp_path)
    write_noise(tmp_path / "wav" / "notes.wav")
    out = tmp_path / "m.parquet"
    status, said, _ = sonar("emodb", tree.path, "--out", out)
    assert status == 0
    assert f"  quarantined {tmp_path}/wav/notes.wav: the file's name does not follow the scheme" in said
    report = json.loads((tmp_path / "m.quarantine.json").read_text())
    assert [item["path"] for item in report["files"]] == [f"{tmp_path}/wav/notes.wav"]
    assert report["strata"]["emodb"]["bad"] == 1
    status, _, errors = sonar("emodb", tree.path, "--out", tmp_path / "n.parquet", "--max-bad-fraction", 0.01)
    assert status == 2
    assert "1 of 43 files" in errors
    assert not (tmp_path / "n.parquet").exists()


def test_a_manifest_may_lie_elsewhere_with_a_root(sonar: Run, tmp_path: Path) -> None:
    tree = TREES["tau"](tmp_path / "data" / "tau")
    out = tmp_path / "elsewhere" / "m.parquet"
    assert sonar("tau", tree.path, "--out", out)[0] == 2
    assert sonar("tau", tree.path, "--out", out, "--root", tmp_path / "data")[0] == 0
    assert all(Path(clip.path).is_file() for clip in read_manifest(out, root=tmp_path / "data"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("esc50",), "give a corpus, a path and --out, or --list"),
        (("esc51", ".", "--out", "m.parquet"), "no importer 'esc51'; there are folder, "),
        (("esc50", ".", "--out", "m.parquet"), "ESC-50: there is no meta/esc50.csv; expected below PATH:"),
        (("csv", "t.csv", "--out", "m.parquet", "--column", "label"), "--column label: give FIELD=COLUMN"),
        (("esc50", "..", "--out", "m.parquet"), ".. does not lie below "),
    ],
)
def test_a_users_error_ends_with_status_2(
    sonar: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said, errors = sonar(*arguments)
    assert (status, said) == (2, "")
    assert errors.startswith(f"error: {message}")


def test_the_list_names_every_corpus_and_what_it_expects(sonar: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    status, said, _ = sonar("--list")
    assert status == 0
    for importer in IMPORTERS.values():
        assert importer.name in said
        assert all(line[:60] in said for line in importer.expects.splitlines())
    assert "UrbanSound8K" not in sonar("esc50", "--list")[1]


def test_the_list_and_the_result_are_given_as_json(sonar: Run, tmp_path: Path) -> None:
    tree = TREES["tau"](tmp_path)
    said = sonar("tau", tree.path, "--out", tmp_path / "m.parquet", "--json")[1]
    assert json.loads(said)["clips"] == len(tree.files)
    listed = json.loads(sonar("--list", "--json")[1])
    assert [item["name"] for item in listed] == list(IMPORTERS)
    assert all(item[key] for item in listed for key in ("title", "expects", "group", "split_note", "license", "source"))


def test_the_documentation_holds_the_list(sonar: Run, root: Path) -> None:
    _, _, after = (root / "docs" / "data.md").read_text().partition("<!-- importers -->\n")
    assert after.partition("<!-- /importers -->")[0] == sonar("--list", "--markdown")[1]
