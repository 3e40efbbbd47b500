"""What is planted in a corpus stands in its card."""

import json
import math
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sonar.data.audio_errors import Quarantined
from sonar.data.card import CardConfig, Source, draw_clips, make_card, read_source
from sonar.data.card_counts import count_clips
from sonar.data.card_schema import SCHEMA, BadFile, Card, card_json
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip, read_manifest, write_manifest
from sonar.data.quarantine import write_quarantine

ONE = CardConfig(workers=1)
RATE = 44_100


def trill(seed: int, seconds: float = 1.5) -> np.ndarray:
    """A melody that no other seed sings, above a little noise."""
    rng = np.random.default_rng(seed)
    tones = np.repeat(rng.uniform(500, 6_000, round(seconds / 0.05)), round(0.05 * RATE))
    return 0.3 * np.sin(2 * np.pi * np.cumsum(tones) / RATE) + 0.003 * rng.standard_normal(len(tones))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six recordings; the second class whistles above 8 kHz, three times as loud as below."""
    root = tmp_path_factory.mktemp("card") / "birds"
    for label, offset in (("owl", 0), ("wren", 100)):
        (root / label).mkdir(parents=True)
        for number in range(6):
            wave = trill(offset + number)
            if offset:
                high = np.sin(2 * np.pi * 12_000 * np.arange(len(wave)) / RATE)
                wave = 0.3 * wave + 3 * 0.3 * 0.3 * high
            soundfile.write(root / label / f"{number}.wav", wave, RATE)
    write_manifest(load_corpus(root, domain="bio").clips, root / "manifest.csv")
    return root


@pytest.fixture
def copied(corpus: Path, tmp_path: Path) -> Path:
    """A corpus of one's own to spoil, with its manifest."""
    shutil.copytree(corpus, tmp_path / "birds")
    return tmp_path / "birds"


def rewrite(root: Path, change: Callable[[Clip], Clip]) -> Source:
    write_manifest([change(clip) for clip in read_manifest(root / "manifest.csv")], root / "manifest.csv")
    return read_source(root / "manifest.csv")


@pytest.fixture(scope="module")
def card(corpus: Path) -> Card:
    return make_card(read_source(corpus / "manifest.csv"), config=ONE)


def test_the_class_that_whistles_above_8_khz_is_told(card: Card) -> None:
    owl, wren = card.sounds.classes
    assert (owl.label, wren.label) == ("owl", "wren")
    assert owl.lost.median is not None and owl.lost.median < 0.01
    assert wren.lost.median == pytest.approx(0.9, abs=0.01)  # 3 times the amplitude is 9 times the energy
    assert (wren.lost.half, wren.lost.clips, owl.lost.half) == (6, 6, 0)
    assert "wren 90%" in card.sounds.verdict and "owl" not in card.sounds.verdict
    assert "1 class: wren (90%)" in next(one.text for one in card.advice if one.rule == "lost_band")


def test_of_a_manifest_that_no_scan_wrote_it_is_not_known_what_was_left_out(card: Card) -> None:
    assert card.quarantine is None


def test_the_report_of_a_scan_beside_its_manifest_is_told(corpus: Path, copied: Path) -> None:
    bad = Quarantined("birds/owl/9.wav", "empty file", "")
    write_quarantine(read_manifest(copied / "manifest.csv"), [bad], str(copied / "manifest.csv"))
    told = (BadFile(path=bad.path, reason=bad.reason, sha256=""),)
    assert read_source(copied / "manifest.csv").quarantine == told
    shutil.make_archive(str(copied.parent / "packed"), "zip", copied)
    assert read_source(f"zip://manifest.csv::{copied.parent / 'packed.zip'}").quarantine == told


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"files": [{"path": "x"}]}'])
def test_a_report_of_something_else_is_refused(copied: Path, content: str) -> None:
    (copied / "manifest.quarantine.json").write_text(content)
    with pytest.raises(ValueError, match=r"manifest\.quarantine\.json is not the report of a scan .*scan anew"):
        read_source(copied / "manifest.csv")


def test_clips_without_a_split_get_the_one_that_training_would_give_them(copied: Path, corpus: Path) -> None:
    given = {clip.clip_id: clip.split for clip in read_manifest(corpus / "manifest.csv")}
    source = rewrite(copied, lambda clip: clip._replace(split=""))
    assert source.splits_made == 12
    assert {clip.clip_id: clip.split for clip in source.clips} == given


def test_a_folder_that_tears_a_group_is_described_too(copied: Path) -> None:
    rows = [
        "file,label,split,source_id",
        "owl/0.wav,owl,train,dusk",
        "owl/1.wav,owl,test,dusk",
        "wren/0.wav,wren,train,x",
    ]
    (copied / "metadata.csv").write_text("\n".join(rows))
    (torn,) = count_clips(read_source(copied).clips, min_clips=1).torn_groups
    assert torn.group == "birds/dusk"


def test_a_corpus_in_an_archive_has_the_same_card(corpus: Path, card: Card, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in corpus.rglob("*.wav"):
            archive.write(path, Path("birds") / path.relative_to(corpus))
    made = make_card(read_source(f"zip://birds::{tmp_path / 'all.zip'}"), config=ONE)
    assert made.sounds == card.sounds
    assert made.counts.classes == card.counts.classes


def test_a_folders_quarantine_is_told(faulty_folder: Path, fault_reasons: dict[str, str]) -> None:
    made = make_card(read_source(faulty_folder), config=ONE)
    assert made.quarantine is not None
    assert {Path(one.path).name for one in made.quarantine} == set(fault_reasons)
    assert made.counts.all.clips == 6
    assert [one.weight for one in made.advice if one.rule == "quarantine"] == ["should"]


def test_planted_copies_are_told_across_and_within_splits(copied: Path) -> None:
    clips = {clip.split: clip for clip in read_manifest(copied / "manifest.csv") if clip.labels == ("owl",)}
    wave, _ = soundfile.read(clips["test"].path)
    soundfile.write(copied / "owl" / "quieter.ogg", 0.3 * wave, RATE)
    shutil.copy(clips["train"].path, copied / "owl" / "same.wav")
    rows = read_manifest(copied / "manifest.csv")
    near = clips["train"]._replace(clip_id="near", path=str(copied / "owl/quieter.ogg"), group="n", sha256="1" * 64)
    same = clips["train"]._replace(clip_id="same", path=str(copied / "owl/same.wav"))
    made = make_card(Source("m", [*rows, near, same], None), config=ONE)
    assert [(one.kind, {one.clip_id, one.other_clip_id}) for one in made.copies.across_splits] == [
        ("near", {"near", clips["test"].clip_id})
    ]
    assert [(one.kind, {one.clip_id, one.other_clip_id}) for one in made.copies.within_splits] == [
        ("file", {"same", clips["train"].clip_id})
    ]


def test_what_another_corpus_shares_is_told_by_clip(copied: Path, corpus: Path) -> None:
    rows = read_manifest(corpus / "manifest.csv")
    owls = [clip for clip in rows if clip.labels == ("owl",)]
    wave, _ = soundfile.read(owls[0].path)
    soundfile.write(copied / "owl" / "trimmed.flac", wave[round(0.2 * RATE) :], RATE)
    other = [
        owls[0]._replace(
            clip_id="trimmed", path=str(copied / "owl/trimmed.flac"), duration_s=1.3, group="x", sha256="2" * 64
        ),
        owls[1],
        owls[2]._replace(clip_id="later", path=owls[5].path, group=owls[3].group, sha256="3" * 64),
    ]
    twin = owls[1]._replace(clip_id="twin")
    source = Source("m", [*(one for one in owls[:4]), twin], None)
    made = make_card(source, against=[Source("eval", other, None)], config=ONE)
    found = {one.clip_id: (one.kind, one.other_clip_id) for one in made.copies.against}
    rates = {one.kind: one.error_rate for one in made.copies.against}
    assert rates["file"] == 0 < rates["near"] < 0.2 and rates["group"] is None
    assert found == {
        owls[0].clip_id: ("near", "trimmed"),
        owls[1].clip_id: ("file", owls[1].clip_id),
        "twin": ("file", owls[1].clip_id),
        owls[3].clip_id: ("group", "later"),
    }
    assert {one.other for one in made.copies.against} == {"eval"}
    assert "4 clips shared with eval" in next(one.text for one in made.advice if one.rule == "leakage")


def test_a_torn_group_is_described_and_not_refused(copied: Path) -> None:
    names = {"birds/owl/0.wav": "train", "birds/owl/1.wav": "test"}
    source = rewrite(copied, lambda c: c._replace(group="day 1", split=names[c.clip_id]) if c.clip_id in names else c)
    (torn,) = make_card(source, config=ONE).counts.torn_groups
    assert (torn.group, torn.splits) == ("day 1", {"test": 1, "train": 1})


def test_a_clip_that_cannot_be_read_is_listed_and_the_others_are_measured(copied: Path, card: Card) -> None:
    (copied / "wren" / "3.wav").write_bytes(b"RIFF")
    made = make_card(read_source(copied / "manifest.csv"), config=ONE)
    (bad,) = made.unreadable
    assert bad.path.endswith("wren/3.wav") and "cannot be decoded" in bad.reason
    assert (made.origin.measured, made.sounds.classes[1].clips) == (11, 5)
    assert made.sounds.classes[0] == card.sounds.classes[0]


def test_the_number_of_workers_does_not_show(corpus: Path, card: Card) -> None:
    assert make_card(read_source(corpus / "manifest.csv"), config=CardConfig(workers=3)) == card


def test_a_sample_is_stated_seeded_and_only_of_the_audio(corpus: Path) -> None:
    source = read_source(corpus / "manifest.csv")
    made = make_card(source, config=CardConfig(max_clips=5, seed=3, workers=1))
    assert (made.origin.measured, made.origin.seed, made.copies.searched) == (5, 3, 5)
    assert made.counts.all.clips == 12
    drawn = [draw_clips(source.clips, CardConfig(max_clips=5, seed=seed)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({clip.clip_id for clip in drawn[0]}) == 5


def test_a_sample_as_large_as_the_corpus_is_all_of_it(corpus: Path, card: Card) -> None:
    source = read_source(corpus / "manifest.csv")
    assert make_card(source, config=CardConfig(max_clips=12, seed=9, workers=1)) == card


def test_progress_ends_where_it_said(corpus: Path) -> None:
    heard: list[tuple[int, int]] = []
    make_card(read_source(corpus / "manifest.csv"), config=ONE, progress=lambda *told: heard.append(told))
    assert heard == [(done, 24) for done in range(1, 25)]


def test_the_json_is_strict_and_says_null_for_what_is_not_known(
    write_audio: Callable[..., Path], tmp_path: Path
) -> None:
    for name in ("a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav"):
        write_audio(f"low/{name}")
    text = card_json(make_card(read_source(tmp_path / "low"), config=ONE))
    made = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert made["schema"] == SCHEMA
    assert made["sounds"]["all"]["lost"] == {"clips": 0, "median": None, "p90": None, "half": 0}
    assert "not known" in made["sounds"]["verdict"]
    assert [one["label"] for one in made["counts"]["classes"]] == ["a", "b"]
    assert made["counts"]["all"]["hours"] == pytest.approx(4 * 0.2 / 3600)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"max_clips": 0}, "max_clips is 0; give 1 or more"), ({"min_clips": 0}, "min_clips is 0; give 1 or more")],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CardConfig(**setting)


def test_a_corpus_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no corpus at"):
        read_source(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no manifest at"):
        read_source(tmp_path / "nothing.csv")


def test_a_folder_without_a_good_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "owl").mkdir()
    (tmp_path / "owl" / "a.wav").touch()
    with pytest.raises(ValueError, match="holds no clip that can be read"):
        read_source(tmp_path)


@pytest.mark.slow
def test_real_audio_that_came_from_8_khz_is_found_out(packs: list[Path]) -> None:
    general = next((pack for pack in packs if pack.name == "general"), None)
    if general is None:
        pytest.skip("no pack `general`")
    made = make_card(read_source(general), config=CardConfig(workers=os.cpu_count()))
    (narrow,) = [one.text for one in made.advice if one.rule == "narrow_band"]
    assert "infant_cry (up to 39" in narrow and "speech (up to 39" in narrow and "in 2 classes" in narrow
    assert all(one.top_hz is not None and math.isfinite(one.top_hz) for one in made.sounds.classes)
