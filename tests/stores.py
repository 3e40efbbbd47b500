"""Audio in memory as shards on disk, written in this process."""

from pathlib import Path

import soundfile
from tiny import RATE, MemoryStore

from sonar.data import shards
from sonar.data.audio import file_sha256


def write_store(folder: Path, made: MemoryStore) -> Path:
    """Shards of a store; rows come in order of the clip ids. Its audio files lie beside `folder`."""
    audio, rows = folder.with_name(f"{folder.name}-audio"), []
    audio.mkdir(parents=True)
    for row, clip in enumerate(sorted(made.clips)):
        path = audio / f"{row}.wav"
        soundfile.write(path, made.waveforms[made.clips.index(clip)], RATE, subtype="PCM_16")
        located = clip._replace(path=str(path), sha256=file_sha256(str(path)))
        rows.append(located._asdict() | {"labels": list(clip.labels), "row": row})
    table = shards.pa.Table.from_pylist(rows, shards._ROW_SCHEMA)
    shards._summarise(shards._write_block(table, str(folder)), folder)
    return folder
