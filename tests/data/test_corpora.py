import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sonar.data.audio import file_sha256
from sonar.data.corpora import load_corpus
from sonar.data.manifest import SPLITS, Clip, ManifestError, write_manifest
from sonar.data.splits import check_group_splits, check_labelled_splits

Write = Callable[..., Path]


def test_class_folders_become_clips_with_splits(tmp_path: Path, write_audio: Write) -> None:
    for label in ("owl", "wren"):
        for number in range(5):
            write_audio(f"birds/{label}/{number}.wav", seconds=0.1, sample_rate=8_000, channels=2)
    (tmp_path / "birds" / "notes.txt").write_text("no audio")
    (tmp_path / "birds" / "owl" / "._0.wav").write_text("left by a Mac")
    clips, quarantine = load_corpus(tmp_path / "birds", domain="bio")
    assert not quarantine
    assert len(clips) == 10
    check_labelled_splits(clips)
    first = tmp_path / "birds" / "owl" / "0.wav"
    clip = next(clip for clip in clips if clip.clip_id == "birds/owl/0.wav")
    assert clip == Clip(
        "birds/owl/0.wav", str(first), 0.0, 0.1, 8_000, 2, "birds", "bio", ("owl",), "birds/owl/0.wav", clip.split,
        file_sha256(first),
    )  # fmt: skip


def test_files_without_a_class_folder_are_unlabelled(tmp_path: Path, write_audio: Write) -> None:
    for number in range(3):
        write_audio(f"field/{number}.flac")
    assert {clip.labels for clip in load_corpus(tmp_path / "field", domain="bio").clips} == {()}


def write_table(folder: Path, *rows: str) -> Path:
    (folder / "metadata.csv").write_text("\n".join(["file,label,split,source_id", *rows]) + "\n")
    return folder


def test_a_table_gives_labels_splits_and_groups(tmp_path: Path, write_audio: Write) -> None:
    for name in "abc":
        write_audio(f"pack/{name}.wav")
    write_table(tmp_path / "pack", "a.wav,x,train,r1", "b.wav,x,valid,r2", "c.wav,,test,")
    clips, _ = load_corpus(tmp_path / "pack", domain="env")
    assert [(clip.labels, clip.split, clip.group) for clip in clips] == [
        (("x",), "train", "pack/r1"),
        (("x",), "dev", "pack/r2"),
        ((), "test", "pack/c.wav"),
    ]


def test_recordings_stay_together_where_no_split_is_given(tmp_path: Path, write_audio: Write) -> None:
    names = [f"{recording}_{part}.wav" for recording in range(4) for part in range(3)]
    for name in names:
        write_audio(f"pack/{name}", seconds=0.05)
    write_table(tmp_path / "pack", *[f"{name},x,,r{name[0]}" for name in names])
    clips, _ = load_corpus(tmp_path / "pack", domain="env")
    check_group_splits(clips)
    assert {clip.split for clip in clips} == set(SPLITS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.wav,x,train,r1", "b.wav,x,fold1,r2"], "row 2: split is 'fold1'; allowed: valid"),
        (["a.wav,x,train,r1", "b.wav,x,,r2"], "row 2: split is ''; allowed"),
        (["a.wav,x,,r1", "b.wav,x,dev,r2"], "row 2: split is 'dev', but row 1 has none"),
        (["a.wav,x,train,r1", "a.wav,x,train,r1"], "row 2: file is 'a.wav'; every row names another file"),
        (["a.wav,x,train,r1", "b.wav,x,dev,r1"], "group 'pack/r1' stands in splits dev, train"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(
    tmp_path: Path, write_audio: Write, rows: list[str], message: str
) -> None:
    for name in "ab":
        write_audio(f"pack/{name}.wav", seconds=0.05)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_corpus(write_table(tmp_path / "pack", *rows), domain="env")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("filename,label\na.wav,x\n")
    with pytest.raises(ManifestError, match="lacks the column 'file'; it has filename, label"):
        load_corpus(tmp_path, domain="env")


def test_every_planted_fault_is_quarantined_with_its_reason(faulty_folder: Path, fault_reasons: dict[str, str]) -> None:
    clips, quarantine = load_corpus(faulty_folder, domain="bio", max_bad_fraction=0.9)
    assert sorted(clip.clip_id for clip in clips) == [f"corpus/{c}/good{i}.wav" for c in "ab" for i in range(3)]
    reasons = {Path(bad.path).name: bad.reason for bad in quarantine}
    assert reasons.keys() == fault_reasons.keys()
    for name, pattern in fault_reasons.items():
        assert re.search(pattern, reasons[name]), (name, reasons[name])
    hashes = {Path(bad.path).name: bad.sha256 for bad in quarantine}
    assert hashes["text.wav"] == file_sha256(faulty_folder / "a" / "text.wav")


@pytest.mark.parametrize("file", ["missing.wav", "../outside.wav", "/etc/hostname"])
def test_a_row_that_leads_nowhere_or_out_is_quarantined(tmp_path: Path, write_audio: Write, file: str) -> None:
    write_audio("outside.wav")
    write_audio("pack/a.wav")
    write_table(tmp_path / "pack", "a.wav,x,train,r1", f"{file},x,train,r2")
    clips, (bad,) = load_corpus(tmp_path / "pack", domain="env", max_bad_fraction=0.5)
    assert len(clips) == 1
    assert re.search("no such file|leads out of|is absolute", bad.reason)
    assert bad.sha256 == ""


def test_too_many_bad_files_stop_the_scan_and_are_named(faulty_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"9 of 15 files of .*corpus are unusable \(allowed: 5%\): .*\.wav: "):
        load_corpus(faulty_folder, domain="bio")


def test_nothing_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no corpus at .*none; give a manifest"):
        load_corpus(tmp_path / "none", domain="bio")
    with pytest.raises(ValueError, match="no audio in"):
        load_corpus(tmp_path, domain="bio")


def test_a_manifest_is_read_and_its_files_are_looked_for(tmp_path: Path, write_audio: Write) -> None:
    for number in range(4):
        write_audio(f"corpus/x/{number}.wav")
    clips, _ = load_corpus(tmp_path / "corpus", domain="bio")
    manifest = tmp_path / "corpus" / "m.parquet"
    write_manifest(clips, manifest)
    assert load_corpus(manifest, domain="ignored") == (clips, ())
    Path(clips[0].path).unlink()
    again, (bad,) = load_corpus(manifest, domain="bio", max_bad_fraction=0.5)
    assert again == clips[1:]
    assert (bad.path, bad.reason) == (clips[0].path, "no such file")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_packs_are_read_whole(packs: list[Path]) -> None:
    for pack in packs:
        clips, quarantine = load_corpus(pack, domain="real")
        assert quarantine == ()
        assert len(clips) == len((pack / "metadata.csv").read_text().splitlines()) - 1
        check_labelled_splits(clips)
