"""The embedded corpora are what their labels say, whole, repeatable, and neither trivial nor noise."""

import csv
import hashlib
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sonar.data import sounds, synth
from sonar.data.corpora import load_corpus
from sonar.data.sounds import Take
from sonar.data.splits import check_labelled_splits
from sonar.data.synth import SYNTH_CORPORA, write_synth_corpus

RATE = 16_000
MIN_CLASSES = {"prior": 12, "bio": 6, "music": 6, "speech": 4, "env": 6}
ONE_CLASS = {"hum": lambda take: sounds.tone(take, 300.0)}


def take(seconds: float = 1.0, pitch: float = 1.0, tempo: float = 1.0) -> Take:
    return Take(np.random.default_rng(0), round(seconds * RATE), pitch, tempo)


def power_between(wave: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Share of the power that lies in a band."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return float(power[(hz >= low_hz) & (hz <= high_hz)].sum() / power.sum())


def log_spectrum(wave: np.ndarray) -> np.ndarray:
    """(40,) mean log power of bands of equal width on a log scale: a plain stand-in for the mean log-mel."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::160] * np.hanning(512)
    power = np.abs(np.fft.rfft(frames)) ** 2  # (F, 257)
    edges = np.unique(np.geomspace(3, 257, 41).astype(int))
    bands = np.stack([power[:, low:high].sum(axis=1) for low, high in pairwise(edges)], axis=1)
    return np.log(bands + 1e-9).mean(axis=0)


def tree_hash(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus "hum" of one class that costs little."""
    monkeypatch.setattr(synth, "SYNTH_CORPORA", {"hum": ONE_CLASS})


@pytest.mark.parametrize("name", SYNTH_CORPORA)
def test_a_corpus_is_read_like_a_real_one(name: str, tmp_path: Path) -> None:
    folder = write_synth_corpus(name, tmp_path / name, clips_per_class=3)
    assert folder == tmp_path / name
    clips, quarantine = load_corpus(folder, domain=name, max_bad_fraction=0.0)
    assert quarantine == ()
    assert Counter(clip.labels for clip in clips) == {(label,): 3 for label in SYNTH_CORPORA[name]}
    check_labelled_splits(clips)
    assert {(clip.sample_rate, clip.channels) for clip in clips} == {(RATE, 1)}
    assert all(1.7 <= clip.duration_s <= 2.3 for clip in clips)


def test_every_corpus_has_enough_classes() -> None:
    assert SYNTH_CORPORA.keys() == MIN_CLASSES.keys()
    for name, count in MIN_CLASSES.items():
        assert len(SYNTH_CORPORA[name]) >= count


@pytest.mark.parametrize("name", SYNTH_CORPORA)
def test_every_sound_is_finite_and_fills_its_take(name: str) -> None:
    for label, sound in SYNTH_CORPORA[name].items():
        for seconds, pitch, tempo in ((1.3, 0.65, 0.7), (2.3, 1.55, 1.45)):
            wave = sound(take(seconds, pitch, tempo))
            assert wave.shape == (round(seconds * RATE),), label
            assert np.isfinite(wave).all(), label
            assert all(part.any() for part in np.array_split(wave, 4)), label


def test_recordings_are_split_60_20_20_and_never_torn(one_class: None, tmp_path: Path) -> None:
    rows = read_table(write_synth_corpus("hum", tmp_path / "hum"))
    recordings = defaultdict(set)
    for row in rows:
        recordings[row["source_id"]].add(row["split"])
    assert all(len(splits) == 1 for splits in recordings.values())
    assert Counter(min(splits) for splits in recordings.values()) == {"train": 9, "valid": 3, "test": 3}
    assert len(rows) == 48
    assert set(Counter(row["source_id"] for row in rows).values()) <= {3, 4}


def test_clips_of_one_recording_sound_alike(one_class: None, tmp_path: Path) -> None:
    """Level, noise and filter belong to the recording: within it clips differ less than between."""
    folder = write_synth_corpus("hum", tmp_path / "hum")
    groups = defaultdict(list)
    for row in read_table(folder):
        groups[row["source_id"]].append(log_spectrum(soundfile.read(folder / row["file"])[0]))
    within = np.mean([np.var(group, axis=0) for group in groups.values()])
    between = np.var([np.mean(group, axis=0) for group in groups.values()], axis=0).mean()
    assert within < 0.2 * between


def test_levels_differ_and_nothing_clips(tmp_path: Path) -> None:
    folder = write_synth_corpus("env", tmp_path / "env", clips_per_class=3)
    waves = [soundfile.read(folder / row["file"], dtype="int16")[0] / 32768 for row in read_table(folder)]
    levels_db = [10 * np.log10(np.mean(wave**2)) for wave in waves]
    assert max(levels_db) < -14
    assert min(levels_db) > -50
    assert np.ptp(levels_db) > 6
    assert all((np.abs(wave) > 0.999).sum() <= 1 for wave in waves)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_audio(one_class: None, tmp_path: Path) -> None:
    first, again, other = (
        tree_hash(write_synth_corpus("hum", tmp_path / name, clips_per_class=6, seed=seed))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert first == again
    assert first.keys() == other.keys()
    assert not set(first.values()) & set(other.values()) - {first["metadata.csv"]}


def test_a_class_does_not_depend_on_its_neighbours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(synth, "SYNTH_CORPORA", {"hum": ONE_CLASS})
    alone = tree_hash(write_synth_corpus("hum", tmp_path / "alone", clips_per_class=3) / "audio/hum")
    monkeypatch.setattr(synth, "SYNTH_CORPORA", {"hum": {"hiss": lambda t: sounds.noise(t, 100, 8000)} | ONE_CLASS})
    assert tree_hash(write_synth_corpus("hum", tmp_path / "both", clips_per_class=3) / "audio/hum") == alone


def test_a_run_that_breaks_leaves_no_corpus_and_the_next_one_is_whole(
    one_class: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full_disk(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(soundfile, "write", full_disk)
        write_synth_corpus("hum", tmp_path / "hum", clips_per_class=3)
    assert not (tmp_path / "hum").exists()
    expected = tree_hash(write_synth_corpus("hum", tmp_path / "other", clips_per_class=3))
    assert tree_hash(write_synth_corpus("hum", tmp_path / "hum", clips_per_class=3)) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hum", "other"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no synthetic corpus 'birds'; there are prior, bio, music, speech, env"):
        write_synth_corpus("birds", tmp_path / "birds")
    with pytest.raises(ValueError, match="clips_per_class is 2; it must be >= 3, a recording for each split"):
        write_synth_corpus("bio", tmp_path / "bio", clips_per_class=2)
    with pytest.raises(FileExistsError, match="exists already: give a new name or remove it"):
        write_synth_corpus("bio", tmp_path)


@pytest.mark.parametrize("pitch", [0.5, 1.0, 1.5])
def test_a_tone_has_its_partials_and_nothing_else(pitch: float) -> None:
    wave = sounds.tone(take(pitch=pitch), 400.0, (1.0, 0.5, 0.0, 0.25))
    amplitude = np.abs(np.fft.rfft(wave)) / len(wave) * 2  # 1 Hz per bin
    expected = np.zeros_like(amplitude)
    expected[(pitch * 400 * np.array([1, 2, 4])).astype(int)] = 1.0, 0.5, 0.25
    np.testing.assert_allclose(amplitude, expected, atol=1e-6)


def test_partials_above_the_nyquist_frequency_are_left_out_and_not_folded() -> None:
    assert power_between(sounds.tone(take(), 3000.0, (1.0, 1.0, 1.0, 1.0)), 6001, 8000) < 1e-12
    assert power_between(sounds.tone(take(), 3000.0, (1.0, 1.0, 1.0, 1.0)), 2999, 6001) > 1 - 1e-12


def test_a_glide_ends_where_it_says() -> None:
    wave = sounds.tone(take(), 1000.0, glide=(0.5, 2.0))
    assert power_between(wave[:1600], 450, 700) > 0.95
    assert power_between(wave[-1600:], 1600, 2100) > 0.95


def test_noise_stays_in_its_band_and_its_tilt_is_per_octave() -> None:
    assert power_between(sounds.noise(take(4), 500, 1000), 500, 1000) > 1 - 1e-9
    tilted = sounds.noise(take(60), 250, 8000, tilt_db=-6)
    densities = [power_between(tilted, hz, 1.02 * hz) / hz for hz in (500, 1000, 2000, 4000)]
    np.testing.assert_allclose(np.diff(10 * np.log10(densities)), -6, atol=1)
    assert np.mean(tilted**2) == pytest.approx(1)


@pytest.mark.parametrize("tempo", [0.5, 1.0, 2.0])
def test_events_repeat_at_their_rate(tempo: float) -> None:
    wave = sounds.repeat(take(4, tempo=tempo), lambda t: sounds.decay(t, 0.005), 0.02, 5.0, jitter=0.0)
    onsets = np.flatnonzero((wave[1:] > 0.1) & (wave[:-1] <= 0.1))
    np.testing.assert_allclose(np.diff(onsets), RATE / (5 * tempo), atol=40)


def test_a_decay_falls_by_e_in_its_time_and_a_beat_has_its_rate() -> None:
    envelope = sounds.decay(take(), 0.1)
    assert envelope[4800] / envelope[3200] == pytest.approx(np.exp(-1))
    gain = sounds.beat(take(), 7.0, 0.4)
    assert gain.min() == pytest.approx(0.6, abs=1e-3)
    assert gain.max() == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.fft.rfft(gain - gain.mean())).argmax() == 7


def test_up_and_down_chirps_differ_in_time_only() -> None:
    up, down = (SYNTH_CORPORA["prior"][label](take(2)) for label in ("up_chirp", "down_chirp"))
    correlation = np.corrcoef(log_spectrum(up)[8:32], log_spectrum(down)[8:32])[0, 1]
    assert correlation > 0.9
    assert np.abs(up - down).max() > 0.1


@pytest.mark.parametrize("pitch_hz", [100.0, 160.0, 220.0])
def test_speech_has_the_pitch_of_its_prosody(pitch_hz: float) -> None:
    wave = sounds.speech(take(2), sounds.Prosody(pitch_hz, (1.0, 1.0), 4.0, 0.0, -6.0))
    correlation = np.fft.irfft(np.abs(np.fft.rfft(wave, 2 * len(wave))) ** 2)
    lags = np.arange(RATE // 400, RATE // 70)
    assert RATE / lags[correlation[lags].argmax()] == pytest.approx(pitch_hz, rel=0.03)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", SYNTH_CORPORA)
def test_classes_can_be_told_apart_but_not_by_their_mean_spectrum_alone(name: str, tmp_path: Path) -> None:
    folder = write_synth_corpus(name, tmp_path / name)
    rows = read_table(folder)
    features = np.stack([log_spectrum(soundfile.read(folder / row["file"])[0]) for row in rows])
    labels = np.array([row["label"] for row in rows])
    train = np.array([row["split"] == "train" for row in rows])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    accuracy = probe.fit(features[train], labels[train]).score(features[~train], labels[~train])
    assert 2 / len(SYNTH_CORPORA[name]) < accuracy < 0.97
