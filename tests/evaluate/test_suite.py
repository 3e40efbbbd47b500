"""Task files: strict to the letter, one role for a corpus, and no control clip in what is trained on."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import make_store

from sonar.config import ConfigError
from sonar.data.manifest import Clip
from sonar.evaluate.finetune import FinetuneConfig
from sonar.evaluate.suite import RoleClips, check_controls, check_unseen, find_suite, packaged_suites, read_suite
from sonar.evaluate.task import corpus_path

SUITE = """
name: mine
probe: {probe: knn, clip_seconds: 3.0, neighbours: [1, 5]}
tasks:
  - {name: birds, role: target, corpus: birds}
  - {name: scenes, role: prior, corpus: sets/scenes.csv, metric: map, probe: {probe: ridge}, finetune: {epochs: 3}}
  - {name: songs, role: control, corpus: songs, split_seed: 3}
"""


def written(folder: Path, text: str = SUITE) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_task_has_the_suites_probe_where_it_says_nothing_else(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path))
    birds, scenes, songs = suite.tasks
    assert [(task.role, task.metric, task.split_seed) for task in suite.tasks] == [
        ("target", "macro_f1", None),
        ("prior", "map", None),
        ("control", "macro_f1", 3),
    ]
    assert birds.probe == songs.probe == suite.probe
    assert (birds.probe.probe, birds.probe.clip_seconds, birds.probe.neighbours) == ("knn", 3.0, (1, 5))
    assert (scenes.probe.probe, scenes.probe.clip_seconds, scenes.probe.neighbours) == ("ridge", 3.0, (1, 5))
    assert (birds.finetune, scenes.finetune) == (None, FinetuneConfig(epochs=3))
    assert (suite.of("target"), suite.of("prior"), suite.of("control")) == (["birds"], ["scenes"], ["songs"])


@pytest.mark.parametrize(
    ("found", "put", "message"),
    [
        (
            "role: target",
            "rolle: target",
            r"unknown key 'tasks\[0\].rolle'; nearest valid key: 'tasks\[0\].(role|probe)'",
        ),
        ("name: mine", "title: mine", "unknown key 'title'; .*valid key"),
        ("clip_seconds: 3.0", "clip_second: 3.0", "unknown key 'probe.clip_second'; nearest .* 'probe.clip_seconds'"),
        ("{probe: ridge}", "{prob: ridge}", r"unknown key 'tasks\[1\].probe.prob'; nearest"),
        ("role: prior", "role: old", r"tasks\[1\].role: got 'old' .*allowed: 'target' or 'prior' or 'control'"),
        ("metric: map", "metric: mAP", r"tasks\[1\].metric: got 'mAP'"),
        ("name: scenes", "name: birds", "suite mine has two tasks called birds"),
        ("name: scenes", "name: a/b", "task name 'a/b': give letters, digits"),
        ("corpus: songs", "corpus: ''", "task songs names no corpus"),
        ("corpus: songs", "corpus: ./birds", "corpus birds is a target and a control task; a corpus has one role"),
        ("split_seed: 3", "split_seed: x", r"tasks\[2\].split_seed"),
        (SUITE, "name: mine\ntasks: []", "suite mine has no task"),
        (SUITE, "name: mine", "required and not given: tasks"),
        (SUITE, "name: mine\ntasks: {birds: 1}", "tasks: got"),
        (SUITE, "name: mine\ntasks: [birds]", r"tasks\[0\]: got 'birds'; allowed: a mapping"),
    ],
)
def test_a_file_that_says_something_else_is_refused(found: str, put: str, message: str, tmp_path: Path) -> None:
    assert found in SUITE
    with pytest.raises(ConfigError, match=message):
        read_suite(written(tmp_path, SUITE.replace(found, put, 1)))


def test_every_packaged_suite_is_one_and_called_as_its_file() -> None:
    names = packaged_suites()
    assert {name.partition("-")[0] for name in names} == {"packs", "paper"} and len(names) == 10
    for name in names:
        suite, folder = find_suite(name)
        assert suite.name == name and folder is None
        assert len(suite.of("target")) == 1 and suite.of("prior")
        if name.startswith("packs-"):
            assert suite.of("target") == [name.removeprefix("packs-")] and len(suite.of("prior")) == 5
        else:
            assert [(task.corpus, task.metric) for task in suite.tasks if task.role == "prior"] == [("audioset", "map")]


def test_the_packs_suites_name_the_packs(root: Path) -> None:
    audio = Path(os.environ.get("SONAR_AUDIO", root.parent / "shared" / "audio"))
    packs = {path.parent for path in audio.glob("*/metadata.csv")}
    if not packs:
        pytest.skip(f"no audio packs in {audio}")
    for name in packaged_suites():
        if name.startswith("packs-"):
            suite, _ = find_suite(name)
            assert {corpus_path(task, audio) for task in suite.tasks} == packs


def test_a_suite_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no suite is called 'bird'; there are .*packs-birds.*paper-bio"):
        find_suite("bird")
    with pytest.raises(FileNotFoundError, match="no task file at"):
        find_suite(str(tmp_path / "mine.yaml"))
    assert find_suite(str(written(tmp_path))).folder == tmp_path


def test_the_manifest_in_a_corpus_folder_is_taken(tmp_path: Path) -> None:
    birds, scenes, songs = read_suite(written(tmp_path)).tasks
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "scenes.csv").touch()
    for corpus in ("birds", "songs"):
        (tmp_path / corpus).mkdir()
    (tmp_path / "birds" / "manifest.csv").touch()
    assert corpus_path(birds, tmp_path) == tmp_path / "birds" / "manifest.csv"
    assert corpus_path(songs, tmp_path) == tmp_path / "songs"
    assert corpus_path(scenes, tmp_path) == tmp_path / "sets" / "scenes.csv"
    with pytest.raises(
        FileNotFoundError, match=r"task birds: no corpus at .*birds; the root is .*--root or SONAR_AUDIO"
    ):
        corpus_path(birds, tmp_path / "elsewhere")


SPLITS = ("train", "train", "dev", "test")


def clips(corpus: str, first: int) -> list[Clip]:
    """Four clips of files and recordings of their own."""
    made = make_store(corpus, 4, split=lambda row: SPLITS[row]).clips
    return [
        clip._replace(sha256=f"{first + row:064x}", group=f"{corpus}/g{first + row}") for row, clip in enumerate(made)
    ]


def sides() -> dict[str, RoleClips]:
    return {
        "birds": RoleClips("birds", "target", clips("birds", 0)),
        "scenes": RoleClips("scenes", "prior", clips("scenes", 10)),
        "songs": RoleClips("songs", "control", clips("songs", 20)),
    }


def replaced(side: RoleClips, row: int, **values: str) -> RoleClips:
    return side._replace(clips=[c._replace(**values) if i == row else c for i, c in enumerate(side.clips)])


@pytest.mark.parametrize("attribute", ["sha256", "group"])
@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("trained", ["birds", "scenes"])
def test_no_control_clip_may_be_trained_on(attribute: str, row: int, trained: str) -> None:
    apart = sides()
    check_controls([*apart.values()])
    for other, is_leak in ((0, True), (2, False)):  # a training clip of the stream, a held-out one
        shared = {attribute: getattr(apart[trained].clips[other], attribute)}
        leaky = apart | {"songs": replaced(apart["songs"], row, **shared)}
        if not is_leak:
            check_controls([*leaky.values()])
            continue
        message = f"control task songs: the .* of clip songs/{row}.wav is in the training split of task {trained}"
        with pytest.raises(ValueError, match=message):
            check_controls([*leaky.values()])


@pytest.mark.parametrize("attribute", ["sha256", "group"])
def test_a_model_is_not_scored_on_what_it_was_trained_on(attribute: str) -> None:
    """A rehearsed training clip of a prior task is as it should be; everything else is a leak."""
    apart = sides()

    def trained(clip: Clip) -> dict[str, set[str]]:
        return {"sha256": set(), "group": set()} | {attribute: {getattr(clip, attribute)}}

    allowed: Callable[[RoleClips, Clip], bool] = lambda side, clip: side.role != "control" and clip.split == "train"  # noqa: E731
    for side in apart.values():
        for clip in side.clips:
            if allowed(side, clip):
                check_unseen([*apart.values()], trained(clip))
                continue
            with pytest.raises(
                ValueError, match=f"task {side.task}: the model .*of 1 clips .*{re.escape(clip.clip_id)}"
            ):
                check_unseen([*apart.values()], trained(clip))
