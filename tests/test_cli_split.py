"""`sonar data split`: what it writes, what it says, and its exit status."""

import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.audio import file_sha256
from sonar.data.manifest import Clip, read_manifest, write_manifest

RATE = 16_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def split(run_sonar: Run) -> Run:
    """Run `sonar data split ...`; gives its exit status, output and errors."""
    return partial(run_sonar, "data", "split")


def clip(folder: Path, name: str, label: str, split: str = "", seed: int = 0, gain: float = 1.0) -> Clip:
    path = folder / name
    noise = np.random.default_rng(seed).standard_normal(RATE)
    soundfile.write(path, 0.1 * gain * noise, RATE)
    return Clip(name, str(path), 0.0, 1.0, RATE, 1, "birds", "bio", (label,), f"g{seed}", split, file_sha256(path))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Ten wrens and two owls without a split, of a recording each."""
    clips = [clip(tmp_path, f"{i}.wav", "wren" if i < 10 else "owl", seed=i) for i in range(12)]
    write_manifest(clips, tmp_path / "m.csv")
    return tmp_path / "m.csv"


def labels_of(path: Path) -> Counter[tuple[str, str]]:
    return Counter((clip.labels[0], clip.split) for clip in read_manifest(path))


def test_it_writes_splits_and_says_what_stands_where_and_what_is_missing(split: Run, manifest: Path) -> None:
    out = manifest.with_name("m2.csv")
    status, said, _ = split(manifest, "--out", out)
    assert status == 0
    counts = labels_of(out)
    assert [counts["wren", name] for name in ("train", "dev", "test")] == [6, 2, 2]
    assert "birds: class 'owl' has no clip in split test: it has 2 recording groups; 3 splits need 3" in said
    assert "6 (6)" in said
    assert f"12 clips, 12 splits made; manifest: {out}" in said


def test_fractions_and_seed_are_those_asked_for(split: Run, manifest: Path) -> None:
    outs = [manifest.with_name(f"m{seed}.csv") for seed in range(4)]
    for seed, out in enumerate(outs):
        assert split(manifest, "--out", out, "--fractions", "train=0.5,test=0.5", "--seed", seed)[0] == 0
        assert labels_of(out) == {(label, s): n for label, n in (("wren", 5), ("owl", 1)) for s in ("train", "test")}
    assert len({out.read_text() for out in outs}) > 1


def test_given_splits_stay_unless_they_are_to_be_ignored(split: Run, manifest: Path) -> None:
    given, out = manifest.with_name("given.csv"), manifest.with_name("out.csv")
    write_manifest([one._replace(split="test") for one in read_manifest(manifest)], given)
    _, said, _ = split(given, "--out", out)
    assert {one.split for one in read_manifest(out)} == {"test"}
    assert "class 'wren' has no clip in split train, dev: it has 10 recording groups, and the given splits" in said
    split(given, "--out", out, "--ignore-given")
    assert labels_of(out)["wren", "train"] == 6


def test_clips_of_one_file_stay_together_where_asked(split: Run, manifest: Path) -> None:
    out = manifest.with_name("out.csv")
    first, *others = read_manifest(manifest)
    parts = [first._replace(clip_id=f"p{i}", group=f"p{i}", start_s=i / 9, duration_s=0.1) for i in range(9)]
    write_manifest([*parts, *others], manifest)
    split(manifest, "--out", out, "--by", "group")
    assert len({one.split for one in read_manifest(out) if one.clip_id[0] == "p"}) > 1
    split(manifest, "--out", out, "--by", "file")
    assert len({one.split for one in read_manifest(out) if one.clip_id[0] == "p"}) == 1


def test_manifests_may_lie_apart_from_the_audio(split: Run, manifest: Path) -> None:
    (manifest.parent / "lists").mkdir()
    apart, out = manifest.parent / "lists" / "m.csv", manifest.parent / "lists" / "m2.csv"
    manifest.rename(apart)
    assert split(apart, "--root", manifest.parent, "--out", out)[0] == 0
    assert read_manifest(out, root=manifest.parent)[0].path == str(manifest.parent / "0.wav")
    assert split(out, "--root", manifest.parent, "--check", "--against", out)[0] == 0
    status, said, _ = split(out, "--check")
    assert status == 1
    assert "unreadable: 12\n" in said


def test_json_gives_the_report(split: Run, manifest: Path) -> None:
    found = json.loads(split(manifest, "--out", manifest.with_name("out.csv"), "--json")[1])
    owl, wren = found["labels"]
    assert wren == {
        "corpus": "birds", "label": "wren", "reason": "", "train": {"groups": 6, "clips": 6},
        "dev": {"groups": 2, "clips": 2}, "test": {"groups": 2, "clips": 2},
    }  # fmt: skip
    assert owl["reason"].endswith("3 splits need 3")


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """A torn group, a file and a quieter copy in two splits, a copy inside a split, and a clip too short."""
    clips = [clip(tmp_path, f"{i}.wav", "wren", ("train", "dev", "test")[i % 3], seed=i) for i in range(6)]
    clips.append(clips[0]._replace(clip_id="same", group="h", split="test"))
    clips.append(clip(tmp_path, "quiet.wav", "wren", "dev", seed=3, gain=0.3)._replace(group="q"))
    clips.append(clip(tmp_path, "quieter.wav", "wren", "test", seed=5, gain=0.3)._replace(group="r"))
    clips.append(clip(tmp_path, "torn.wav", "wren", "train", seed=7)._replace(group="g1"))
    clips.append(clip(tmp_path, "short.wav", "wren", "train", seed=8)._replace(duration_s=0.2))
    write_manifest(clips, tmp_path / "leaking.csv")
    return tmp_path / "leaking.csv"


def test_check_names_everything_that_stands_in_two_splits(split: Run, leaking: Path) -> None:
    status, said, _ = split(leaking, "--check")
    assert status == 1
    sha256 = read_manifest(leaking)[0].sha256
    for line in (
        "groups in several splits: 1\n  g1: dev, train\n",
        f"files in several splits: 1\n  {sha256}: test, train\n",
        "duplicates across splits: 2\n  file: 0.wav (train) = same (test)\n  near: 3.wav (train) = quiet.wav (dev), ",
        "duplicates inside a split: 1\n  near: 5.wav (test) = quieter.wav (test), ",
        "too short to fingerprint: 1\n  short.wav\n",
    ):
        assert line in said
    found = json.loads(split(leaking, "--check", "--json")[1])
    assert [(pair["kind"], pair["one"], pair["other_split"]) for pair in found["duplicates"]] == [
        ("file", "0.wav", "test"), ("near", "3.wav", "dev"), ("near", "5.wav", "test"),
    ]  # fmt: skip
    assert found["torn_groups"] == {"g1": ["dev", "train"]}
    assert found["torn_files"] == {sha256: ["test", "train"]}
    assert found["too_short"] == ["short.wav"]


def test_check_against_another_manifest_finds_its_evaluation_clips_in_training(split: Run, manifest: Path) -> None:
    train, test, beside = (manifest.with_name(f"{name}.csv") for name in ("train", "test", "beside"))
    clips = read_manifest(manifest)
    write_manifest([one._replace(split="train") for one in clips[:3]], train)
    write_manifest([one._replace(split="test", clip_id=f"e{one.clip_id}", group="e") for one in clips[2:5]], test)
    write_manifest([one._replace(split="test") for one in clips[5:]], beside)
    assert split(train, "--check")[0] == 0
    assert split(train, "--check", "--against", beside)[0] == 0
    status, said, _ = split(train, "--check", "--against", beside, "--against", test)
    assert status == 1
    assert "duplicates across splits: 1\n  file: 2.wav (train) = e2.wav (test)\n" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --out MANIFEST to write splits, or --check"),
        (["--out", "o.csv", "--check"], "give either --out MANIFEST to write splits, or --check"),
        (["--out", "o.csv", "--against", "o.csv"], "--against belongs to --check"),
        (["--out", "o.csv", "--by", "day"], "--by day; allowed: group, file"),
        (["--out", "o.csv", "--fractions", "60:20:20"], "--fractions 60:20:20; give them as train=0.6,dev=0.2,test"),
        (["--out", "o.csv", "--fractions", "train=0.6,dev=0.2"], "shares above 0 that add up to 1"),
        (["--check"], "12 clips have no split; make them by `sonar data split MANIFEST --out MANIFEST`"),
    ],
)
def test_a_user_s_error_ends_with_2_and_says_what_to_do(
    split: Run, manifest: Path, arguments: list[str], message: str
) -> None:
    status, _, error = split(manifest, *arguments)
    assert status == 2
    assert message in error


def test_a_long_list_is_cut_on_the_terminal(split: Run, tmp_path: Path) -> None:
    one = clip(tmp_path, "a.wav", "wren", "train")
    copies = [one._replace(clip_id=f"c{i}", group=f"h{i}", split="test") for i in range(30)]
    write_manifest([one, *copies], tmp_path / "m.parquet")
    said = split(tmp_path / "m.parquet", "--check")[1]
    assert "duplicates across splits: 30\n" in said
    assert "  and 10 more; --json gives all\n" in said
