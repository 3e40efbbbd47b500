"""Every importer on a small tree in the published layout: labels, groups and the official split, file by file."""

from pathlib import Path

import pytest
from published import TREES, Tree, Truth, imported

from sonar.data.importers import IMPORTERS
from sonar.data.manifest import SPLITS, read_manifest, write_manifest


def test_every_importer_has_a_tree_and_every_tree_an_importer() -> None:
    assert TREES.keys() == IMPORTERS.keys()


@pytest.fixture(params=sorted(IMPORTERS))
def corpus(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tree(corpus: str, tmp_path: Path) -> Tree:
    return TREES[corpus](tmp_path)


def test_a_corpus_lists_labels_groups_and_official_splits_of_all_its_files(corpus: str, tree: Tree) -> None:
    listing = IMPORTERS[corpus].read(tree.path, tree.options)
    assert {item.file: Truth(item.labels, item.group, item.split) for item in listing.files} == tree.files
    assert len(listing.files) == len(tree.files)
    assert listing.refused == ()


def test_an_imported_corpus_is_split_without_a_torn_group_and_as_published(corpus: str, tree: Tree) -> None:
    found = imported(corpus, tree.path, tree.options)
    assert found.quarantine == ()
    root = tree.options.extract_to or (tree.path.parent if tree.path.is_file() else tree.path)
    by_file = {Path(clip.path).relative_to(root.resolve()).as_posix(): clip for clip in found.clips}
    assert by_file.keys() == tree.files.keys()
    assert len({(clip.group, clip.split) for clip in found.clips}) == len({clip.group for clip in found.clips})
    official = {truth.split for truth in tree.files.values()} - {""}
    for file, truth in tree.files.items():
        clip = by_file[file]
        assert (clip.labels, clip.corpus, clip.domain) == (truth.labels, found.clips[0].corpus, "d")
        # Evaluation data stays as published: what is dealt goes to train, or to a split that has nothing official.
        allowed = {truth.split} if truth.split else set(SPLITS) - official | {"train"}
        assert clip.split in allowed
    assert len({clip.clip_id for clip in found.clips}) == len(found.clips)


def test_what_is_imported_can_be_written_and_read(corpus: str, tree: Tree, tmp_path: Path) -> None:
    found = imported(corpus, tree.path, tree.options)
    write_manifest(found.clips, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == found.clips


def test_an_empty_folder_is_answered_with_what_is_missing_and_how_it_should_look(corpus: str, tmp_path: Path) -> None:
    with pytest.raises((FileNotFoundError, ValueError)) as raised:
        IMPORTERS[corpus].read(tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert corpus == "folder" or IMPORTERS[corpus].expects in str(raised.value)
