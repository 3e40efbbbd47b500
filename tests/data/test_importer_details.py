"""What the layouts leave open: folds, missing parts, names that do not fit, torn groups, and what is left out."""

import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from published import TREES, imported, text, write_noise

from sonar.data.importers import IMPORTERS, ImportOptions, Listing, find_importer
from sonar.data.importers.importer import held_out, published
from sonar.data.importers.tables import split_named_in
from sonar.data.listing import Listed
from sonar.data.manifest import SPLITS, ManifestError


def listing_of(name: str, root: Path, **options: object) -> Listing:
    return IMPORTERS[name].read(root, ImportOptions(**options))  # type: ignore[arg-type]


def splits_of(listing: Listing) -> dict[str, str]:
    return {item.file: item.split for item in listing.files}


# --- folds and official splits


@pytest.mark.parametrize("num_folds", [2, 5, 10])
def test_each_fold_is_test_once_and_dev_once(num_folds: int) -> None:
    for split in ("test", "dev"):
        held = [
            fold
            for chosen in range(1, num_folds + 1)
            for fold in range(1, num_folds + 1)
            if held_out(fold, chosen, num_folds) == split
        ]
        assert sorted(held) == list(range(1, num_folds + 1))
    assert [held_out(fold, None, num_folds) for fold in (num_folds - 1, num_folds)] == ["dev", "test"]


@pytest.mark.parametrize(
    ("name", "fold_of"),
    [
        ("esc50", lambda file: int(Path(file).name[0])),
        ("urbansound8k", lambda file: int(Path(file).parts[1].removeprefix("fold"))),
        ("iemocap", lambda file: int(file[len("Session")])),
    ],
)
def test_a_chosen_fold_is_the_test_split(name: str, fold_of: Callable[[str], int], tmp_path: Path) -> None:
    tree = TREES[name](tmp_path)
    last = IMPORTERS[name].num_folds
    for file, split in splits_of(listing_of(name, tree.path, fold=1)).items():
        assert split == {1: "test", last: "dev"}.get(fold_of(file), "train")


def test_options_that_do_not_suit_a_corpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="esc50 has folds 1 to 5, not 6"):
        listing_of("esc50", tmp_path, fold=6)
    with pytest.raises(ValueError, match="gtzan has no use for the option fold; of these options it takes: none"):
        listing_of("gtzan", tmp_path, fold=1)
    with pytest.raises(ValueError, match=r"csv has no use for the option extract_to; .* takes: columns"):
        listing_of("csv", tmp_path, extract_to=tmp_path)
    with pytest.raises(ValueError, match="no importer 'esc-50'; there are folder, csv"):
        find_importer("esc-50")


def test_the_files_of_a_corpus_are_listed_without_options(tmp_path: Path) -> None:
    tree = TREES["emodb"](tmp_path)
    assert list(IMPORTERS["emodb"].list(tree.path)) == IMPORTERS["emodb"].read(tree.path).files


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(SPLITS)), min_size=1))
def test_a_published_split_is_kept_and_no_group_stands_in_two(rows: list[tuple[str, str]]) -> None:
    given_files = [Listed(f"{number}.wav", (), group, split) for number, (group, split) in enumerate(rows)]
    listing = published(Path(), given_files)
    splits: dict[str, set[str]] = defaultdict(set)
    groups: dict[str, set[str]] = defaultdict(set)
    opened = {split for _, split in rows} < set(SPLITS)
    for before, after in zip(given_files, listing.files, strict=True):
        assert after.split == ("" if before.split == "train" and opened else before.split)
        splits[after.group].add(after.split)
        groups[after.group].add(before.group)
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(found) == 1 for found in groups.values())
    torn = {group for group, _ in rows if len({split for other, split in rows if other == group}) > 1}
    assert any(note.startswith(f"{len(torn)} groups stand in several") for note in listing.notes) == bool(torn)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/validation-0000.parquet", "dev"),
        ("default/test/0000.parquet", "test"),
        ("train.clean.100-0000.tar", "train"),
        ("part_eval_3.tar", "test"),
        ("trainer-0000.tar", ""),
        ("restrain/latest.tar", ""),
        ("train/test-0000.tar", "test"),
    ],
)
def test_a_split_is_a_whole_word_of_a_path(path: str, split: str) -> None:
    assert split_named_in(path) == split


# --- what is missing on disk


def test_a_listed_file_that_is_not_there_is_quarantined(tmp_path: Path) -> None:
    tree = TREES["esc50"](tmp_path)
    gone = min(tree.files)
    (tmp_path / gone).unlink()
    found = imported("esc50", tree.path, max_bad_fraction=0.1)
    assert [(bad.path, bad.reason) for bad in found.quarantine] == [(str(tmp_path / gone), "no such file")]
    assert len(found.clips) == len(tree.files) - 1
    with pytest.raises(ValueError, match=r"1 of 10 files of .* are unusable"):
        imported("esc50", tree.path)


def test_a_table_cannot_reach_outside_its_folder(tmp_path: Path) -> None:
    secret = write_noise(tmp_path / "secret.wav")
    write_noise(tmp_path / "corpus" / "good.wav")
    text(tmp_path / "corpus" / "t.csv", ["file,label", "good.wav,x", "../secret.wav,x", f"{secret},x"])
    found = imported("csv", tmp_path / "corpus" / "t.csv", max_bad_fraction=0.9)
    assert [Path(clip.path).name for clip in found.clips] == ["good.wav"]
    assert sorted(bad.reason.partition("path ")[2].partition(";")[0] for bad in found.quarantine) == sorted(
        [f"../secret.wav leads out of {tmp_path / 'corpus'}", f"{secret} is absolute"]
    )


def test_segments_without_local_audio_are_counted(tmp_path: Path) -> None:
    tree = TREES["audioset"](tmp_path)
    notes = listing_of("audioset", tree.path).notes
    assert "1 of 2 segments of unbalanced_train_segments.csv have no audio here and are left out" in notes
    shutil.rmtree(tmp_path / "balanced")
    assert any(note.startswith("2 of 2 segments of balanced") for note in listing_of("audioset", tree.path).notes)
    (tmp_path / "unbalanced_train_segments.csv").unlink()
    assert splits_of(listing_of("audioset", tree.path)) == {"eval/-0RWZT-miFs_420000_430000.wav": "test"}
    shutil.rmtree(tmp_path / "eval")
    with pytest.raises(ValueError, match="AudioSet: no audio listed in"):
        listing_of("audioset", tree.path)


def test_a_segment_of_an_unknown_class_is_refused(tmp_path: Path) -> None:
    tree = TREES["audioset"](tmp_path)
    text(tmp_path / "eval_segments.csv", ['-0RWZT-miFs, 420.000, 430.000, "/m/nowhere"'])
    with pytest.raises(ManifestError, match=r"class '/m/nowhere' is not in class_labels_indices.csv"):
        listing_of("audioset", tree.path)
    text(tmp_path / "eval_segments.csv", ["-0RWZT-miFs, 420.000, 430.000, /m/a, /m/b"])
    with pytest.raises(ManifestError, match="is not video, start, end and a quoted list"):
        listing_of("audioset", tree.path)


@pytest.mark.parametrize(
    ("name", "table", "column"),
    [
        ("esc50", "meta/esc50.csv", "src_file"),
        ("urbansound8k", "metadata/UrbanSound8K.csv", "fsID"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", "labels"),
        ("tau", "meta.csv", "identifier"),
        ("fma", "fma_metadata/tracks.csv", "genre_top"),
        ("beans", "watkins/annotations.valid.csv", "label"),
        ("audioset", "class_labels_indices.csv", "mid"),
    ],
)
def test_a_column_that_is_missing_is_named(name: str, table: str, column: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path)
    path = tmp_path / table
    path.write_text(path.read_text().replace(column, "other"))
    with pytest.raises(ManifestError, match=f"{table} lacks the column '?[a-z.]*{column}"):
        listing_of(name, tree.path)


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        ("esc50", "meta/esc50.csv", "there is no .*meta/esc50.csv"),
        ("fsd50k", "FSD50K.ground_truth/eval.csv", "there is no .*eval.csv"),
        ("fsd50k", "FSD50K.metadata/eval_clips_info_FSD50K.json", "there is no .*eval_clips_info_FSD50K.json"),
        ("tau", "evaluation_setup/fold1_evaluate.csv", "there is no .*fold1_evaluate.csv"),
        ("gtzan", "valid_filtered.txt", "there is no valid_filtered.txt"),
        ("fma", "fma_small", "there is no fma_small, fma_medium, fma_large or fma_full"),
        ("audioset", "class_labels_indices.csv", "there is no .*class_labels_indices.csv"),
        ("beans", "watkins/annotations.test.csv", "there is no annotations.test.csv or "),
    ],
)
def test_a_part_that_is_missing_is_named_with_the_layout(name: str, gone: str, message: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path)
    path = tmp_path / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message) as raised:
        listing_of(name, tree.path)
    assert IMPORTERS[name].expects in str(raised.value)


# --- corpora one by one


def test_uploaders_are_the_groups_of_fsd50k_only_where_they_are_known(tmp_path: Path) -> None:
    tree = TREES["fsd50k"](tmp_path)
    shutil.rmtree(tmp_path / "FSD50K.metadata")
    listing = listing_of("fsd50k", tree.path)
    assert {item.group for item in listing.files} == set("12345")
    assert any("every clip is a group of its own" in note for note in listing.notes)


def test_a_clip_whose_uploader_is_not_told_is_refused(tmp_path: Path) -> None:
    tree = TREES["fsd50k"](tmp_path)
    (tmp_path / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text('{"1": {"uploader": "ann"}}')
    with pytest.raises(ManifestError, match=r"dev_clips_info_FSD50K.json tells no uploader of 2"):
        listing_of("fsd50k", tree.path)


def test_an_uploader_on_both_sides_of_the_published_split_is_told(tmp_path: Path) -> None:
    tree = TREES["fsd50k"](tmp_path)
    info = tmp_path / "FSD50K.metadata" / "eval_clips_info_FSD50K.json"
    info.write_text(info.read_text().replace('"di"', '"ann"'))
    listing = listing_of("fsd50k", tree.path)
    assert splits_of(listing) == {file: truth.split for file, truth in tree.files.items()}
    assert "1 groups stand in several official splits, as 'uploader ann'; the split is kept" in listing.notes
    assert not imported("fsd50k", tree.path).quarantine


def test_scenes_outside_the_official_fold_are_left_out_and_counted(tmp_path: Path) -> None:
    notes = listing_of("tau", TREES["tau"](tmp_path).path).notes
    assert any(note.startswith("1 clips stand on neither side") and "vienna-8" in note for note in notes)
    assert any(note.startswith("no official split for dev") for note in notes)


def test_gtzan_without_lists_is_dealt_and_says_that_repeats_stay(tmp_path: Path) -> None:
    tree = TREES["gtzan"](tmp_path)
    listing = listing_of("gtzan", tree.path)
    assert any(note.startswith("1 excerpts stand in no list") and "rock.00099" in note for note in listing.notes)
    for path in tmp_path.glob("*_filtered.txt"):
        path.unlink()
    listing = listing_of("gtzan", tree.path)
    assert set(splits_of(listing).values()) == {""}
    assert len(listing.files) == len(tree.files) + 1
    assert "repeated and faulty excerpts stay in" in listing.notes[0]


@pytest.mark.parametrize("place", ["genres_original", "Data/genres_original", "."])
def test_gtzan_is_found_where_its_copies_have_it_and_as_au(place: str, tmp_path: Path) -> None:
    for name in ("blues/blues.00000", "jazz/jazz.00001"):
        path = tmp_path / place / f"{name}.au"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, [0.1, 0.2] * 500, 16_000, format="AU")
    for name, row in {"train": "blues/blues.00000.wav", "valid": "jazz/jazz.00001.wav", "test": "pop/x.wav"}.items():
        text(tmp_path / f"{name}_filtered.txt", [row])
    listing = listing_of("gtzan", tmp_path)
    inside = "" if place == "." else f"{place}/"
    assert [item.file for item in listing.files] == [
        f"{inside}{name}" for name in ("blues/blues.00000.au", "jazz/jazz.00001.au", "pop/x.wav")
    ]
    found = imported("gtzan", tmp_path, max_bad_fraction=0.5)
    assert [bad.reason for bad in found.quarantine] == ["no such file"]


def test_a_larger_fma_holds_the_smaller_ones_and_tracks_without_genre_are_counted(tmp_path: Path) -> None:
    tree = TREES["fma"](tmp_path)
    with (tmp_path / "fma_metadata" / "tracks.csv").open("a") as file:
        file.write("77,F,5,training,medium,\n")
    (tmp_path / "fma_large").mkdir()
    listing = listing_of("fma", tree.path)
    assert splits_of(listing).keys() == {
        f"fma_large/{name[:3]}/{name}.mp3" for name in ("000002", "000003", "000140", "001040", "000005", "000077")
    }
    assert [item.labels for item in listing.files][-1] == ()
    assert listing.notes == ("1 tracks have no genre_top and no label, as 77",)


def test_other_emotions_are_left_out_and_counted(tmp_path: Path) -> None:
    (note,) = listing_of("iemocap", TREES["iemocap"](tmp_path).path).notes
    assert note == "10 turns of other emotions are left out, most of them xxx, fru"


@pytest.mark.parametrize(("name", "file"), [("crema-d", "AudioWAV/1001_DFA_BAD_XX.wav"), ("emodb", "wav/notes.wav")])
def test_a_name_outside_the_scheme_is_quarantined_and_not_guessed(name: str, file: str, tmp_path: Path) -> None:
    tree = TREES[name](tmp_path)
    write_noise(tmp_path / file)
    listing = listing_of(name, tree.path)
    assert len(listing.files) == len(tree.files)
    assert [(bad.path, bad.reason) for bad in listing.refused] == [
        (str(tmp_path / file), "the file's name does not follow the scheme of the corpus")
    ]
    assert imported(name, tree.path, max_bad_fraction=0.1).quarantine == tuple(
        bad._replace(stratum=name) for bad in listing.refused
    )


def test_what_a_mac_leaves_beside_the_audio_is_no_audio(tmp_path: Path) -> None:
    for name in ("emodb", "gtzan", "audioset", "huggingface", "webdataset"):
        tree = TREES[name](tmp_path / name)
        before = IMPORTERS[name].read(tree.path, tree.options)
        for path in [path for path in tree.path.rglob("*") if path.suffix in {".wav", ".parquet", ".tar"}]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 left by a Mac")
        assert IMPORTERS[name].read(tree.path, tree.options) == before


def test_songs_of_ravdess_are_counted_and_its_archive_folder_may_stay(tmp_path: Path) -> None:
    tree = TREES["ravdess"](tmp_path / "Audio_Speech_Actors_01-24")
    listing = listing_of("ravdess", tmp_path)
    assert {item.file for item in listing.files} == {f"Audio_Speech_Actors_01-24/{file}" for file in tree.files}
    assert "1 songs are left out, as 03-02-01-01-01-01-01.wav" in listing.notes


def test_cbi_without_recordists_says_so(tmp_path: Path) -> None:
    tree = TREES["cbi"](tmp_path)
    (tree.path / "train.csv").unlink()
    listing = listing_of("cbi", tree.path)
    assert {item.group for item in listing.files} == set(tree.files)
    assert listing.notes == ("recordists are not in the tables: every clip is a group of its own, the split is kept",)


@pytest.mark.parametrize("prefix", ["/home/me/beans/data/watkins/", "", "data/watkins/"])
def test_beans_is_found_wherever_its_repository_was(prefix: str, tmp_path: Path) -> None:
    tree = TREES["beans"](tmp_path)
    for table in tree.path.glob("annotations.*.csv"):
        table.rename(tree.path / table.name.removeprefix("annotations."))
    for table in tree.path.glob("*.csv"):
        table.write_text(table.read_text().replace("data/watkins/", prefix))
    assert splits_of(listing_of("beans", tree.path)) == {file: truth.split for file, truth in tree.files.items()}


def test_a_detection_set_of_beans_is_refused_by_name(tmp_path: Path) -> None:
    text(tmp_path / "train.jsonl", ["{}"])
    with pytest.raises(FileNotFoundError, match=r"with train.jsonl it is a detection set, which is not read"):
        listing_of("beans", tmp_path)


def test_inaturalist_is_joined_by_ids_whatever_their_order_and_a_hole_is_named(tmp_path: Path) -> None:
    tree = TREES["inat-sounds"](tmp_path)
    table = tmp_path / "val.json"
    content = json.loads(table.read_text())
    shuffled = content | {"annotations": content["annotations"][::-1], "audio": content["audio"][::-1]}
    for audio in shuffled["audio"]:
        audio["file_name"] = audio["file_name"].removeprefix("val/")
    table.write_text(json.dumps(shuffled))
    listing = listing_of("inat-sounds", tree.path)
    assert {item.file: item.labels for item in listing.files} == {
        file: truth.labels for file, truth in tree.files.items()
    }
    table.write_text(json.dumps(content | {"annotations": content["annotations"][:1]}))
    with pytest.raises(ManifestError, match=r"val.json lacks 1; it has categories, annotations and audio"):
        listing_of("inat-sounds", tree.path)
    table.write_text("{")
    with pytest.raises(ManifestError, match=r"val.json is no JSON"):
        listing_of("inat-sounds", tree.path)


# --- one's own table


def test_segments_of_a_table_become_clips_of_their_own(tmp_path: Path) -> None:
    write_noise(tmp_path / "long.wav", seconds=1.0)
    rows = ["file,labels,start_s,duration_s", "long.wav,a;b,0,0.25", "long.wav,b,0.5,0.25", "long.wav,,0.75,"]
    text(tmp_path / "t.csv", rows)
    clips = imported("csv", tmp_path / "t.csv").clips
    assert [(clip.start_s, clip.duration_s, clip.labels) for clip in clips] == [
        (0.0, 0.25, ("a", "b")),
        (0.5, 0.25, ("b",)),
        (0.75, 0.25, ()),
    ]
    assert len({clip.clip_id for clip in clips}) == 3
    assert {clip.group for clip in clips} == {"t/long.wav"}


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (["name", "a.wav"], {}, "lacks the column 'file'; say which it is: --column file=, of name"),
        (["file", "a.wav"], {"species": "file"}, "there is no field 'species'; there are file, label"),
        (["file", "a.wav"], {"label": "kind"}, "column label=kind: there is no 'kind'; there are file"),
        (["file,split", "a.wav,fold1"], {}, "row 1: split is 'fold1'; allowed: "),
        (["file,start_s", "a.wav,-1"], {}, "row 1: '-1' is not a number of seconds >= 0"),
        (["file,duration_s", "a.wav,inf"], {}, "row 1: 'inf' is not a number of seconds >= 0"),
        (["file,label", ",x"], {}, "row 1: file is empty"),
        (["file", "a.wav", "a.wav"], {}, "a.wav is listed twice in"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    tmp_path: Path, rows: list[str], columns: dict[str, str], message: str
) -> None:
    text(tmp_path / "t.csv", rows)
    with pytest.raises(ValueError, match=re.escape(message)):
        listing_of("csv", tmp_path / "t.csv", columns=columns)


def test_a_table_with_tabs_is_read_and_one_without_labels_says_so(tmp_path: Path) -> None:
    text(tmp_path / "t.tsv", ["file\tgroup", "a, b.wav\tg"])
    listing = listing_of("csv", tmp_path / "t.tsv")
    assert listing.files == [Listed("a, b.wav", (), "g")]
    assert listing.notes == ("no column label or labels: the clips are unlabelled",)
    (tmp_path / "t.tsv").write_bytes(b"file\n\xff\xfe.wav\n")
    with pytest.raises(ManifestError, match=r"t.tsv is no table of text"):
        listing_of("csv", tmp_path / "t.tsv")


@pytest.mark.parametrize(("importer", "table"), [("audioset", "eval_segments.csv"), ("fma", "fma_metadata/tracks.csv")])
def test_a_published_table_that_is_not_text_is_named(tmp_path: Path, importer: str, table: str) -> None:
    tree = TREES[importer](tmp_path)
    (tree.path / table).write_bytes(b"\xff\xfe\x00,\xff\n")
    with pytest.raises(ManifestError, match=f"{table} is no table of text"):
        listing_of(importer, tree.path)
