from pathlib import Path

import numpy as np
import pytest

from sonar.evaluate.predictions import Predictions, read_predictions, write_predictions

MADE = Predictions(
    clip_ids=np.asarray(["a/1.wav", "a/ü.wav"]),
    groups=np.asarray(["a", "a"]),
    classes=("owl", "wren", "x;y"),
    truth=np.asarray([[True, False, False], [False, True, True]]),
    scores=np.asarray([[0.5, -1.0, 0.0], [0.0, 2.0, np.float32(0.1)]], dtype=np.float32),
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_predictions(MADE, tmp_path / "dev.npz")
    read = read_predictions(tmp_path / "dev.npz")
    assert read.classes == MADE.classes
    for name in ("clip_ids", "groups", "truth", "scores"):
        np.testing.assert_array_equal(getattr(read, name), getattr(MADE, name))


def test_files_that_hold_no_predictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "dev.npz"
    with pytest.raises(FileNotFoundError, match="evaluate the checkpoint again"):
        read_predictions(path)
    path.write_text("no archive")
    with pytest.raises(ValueError, match="holds no predictions"):
        read_predictions(path)
    np.savez(path, clip_ids=MADE.clip_ids)
    with pytest.raises(ValueError, match="holds no predictions"):
        read_predictions(path)
    write_predictions(MADE._replace(groups=MADE.groups[:1]), path)
    with pytest.raises(ValueError, match="2 clips and 3 classes do not fit"):
        read_predictions(path)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dev.npz"
    np.savez(path, **MADE._asdict() | {"classes": np.asarray([{"an": "object"}], dtype=object)})
    with pytest.raises(ValueError, match="allow_pickle"):
        read_predictions(path)
