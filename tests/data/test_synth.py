"""The embedded corpora read as a user's folder, are reproducible, and are neither trivial nor noise."""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import stft
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sonar.data.audio import decode_audio
from sonar.data.corpora import load_corpus
from sonar.data.manifest import Clip
from sonar.data.splits import check_labelled_splits
from sonar.data.synth import SYNTH_CORPORA, write_synth_corpus

LEAST_CLASSES = {"prior": 12, "bio": 6, "music": 6, "speech": 4, "env": 6}


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def mean_spectrum(path: str) -> np.ndarray:
    """(32,) mean log power in bands of equal width on the mel scale."""
    _, _, spectrum = stft(decode_audio(path), nperseg=512)
    edges = 700 * (10 ** (np.linspace(0, np.log10(1 + 8_000 / 700), 33)) - 1) / 8_000 * 256
    bands = [np.abs(spectrum[int(low) : max(int(low) + 1, int(high))]) ** 2 for low, high in pairwise(edges)]
    return np.array([np.log(band.mean(axis=0) + 1e-9).mean() for band in bands])


def baseline_accuracy(clips: list[Clip]) -> float:
    """Of a linear classifier on mean spectra, fitted on train and scored on dev and test."""
    vectors = np.array([mean_spectrum(clip.path) for clip in clips])
    labels = np.array([clip.labels[0] for clip in clips])
    train = np.array([clip.split == "train" for clip in clips])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    return float(classifier.fit(vectors[train], labels[train]).score(vectors[~train], labels[~train]))


def test_every_domain_has_its_classes() -> None:
    assert {name: len(sounds) >= LEAST_CLASSES[name] for name, sounds in SYNTH_CORPORA.items()} == dict.fromkeys(
        LEAST_CLASSES, True
    )


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_synth_corpus("speech", tmp_path / folder, clips_per_class=3, seed=seed)
    first, again, other = (content(tmp_path / folder) for folder in "abc")
    assert first == again
    assert not {digest for name, digest in first.items() if name.endswith(".flac")} & set(other.values())


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SYNTH_CORPORA)
def test_a_corpus_is_a_users_folder_that_is_learnable_and_not_trivial(name: str, tmp_path: Path) -> None:
    scan = load_corpus(write_synth_corpus(name, tmp_path / name), domain=name)
    assert scan.quarantine == ()
    check_labelled_splits(scan.clips)
    assert {clip.labels for clip in scan.clips} == {(label,) for label in SYNTH_CORPORA[name]}
    assert len({clip.sha256 for clip in scan.clips}) == len(scan.clips)
    assert len({clip.group for clip in scan.clips}) >= 9 * len(SYNTH_CORPORA[name])
    for clip in scan.clips:
        assert (clip.sample_rate, clip.channels) == (16_000, 1)
        assert 1.5 < clip.duration_s < 2.5
    chance = 1 / len(SYNTH_CORPORA[name])
    assert 1.8 * chance < baseline_accuracy(scan.clips) < 0.95


@pytest.mark.parametrize("clips_per_class", [3, 4, 7])
def test_few_clips_still_give_every_split_a_recording(clips_per_class: int, tmp_path: Path) -> None:
    folder = write_synth_corpus("speech", tmp_path / "s", clips_per_class=clips_per_class)
    clips = load_corpus(folder, domain="speech").clips
    check_labelled_splits(clips)
    assert len(clips) == clips_per_class * len(SYNTH_CORPORA["speech"])


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no synthetic corpus 'birds'; there are prior, bio, music, speech, env"):
        write_synth_corpus("birds", tmp_path / "b")
    with pytest.raises(ValueError, match="clips_per_class is 2; it must be >= 3"):
        write_synth_corpus("bio", tmp_path / "b", clips_per_class=2)
    with pytest.raises(FileExistsError, match="remove it, or give another folder"):
        write_synth_corpus("bio", tmp_path)
