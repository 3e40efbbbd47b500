"""Audio in memory as shards on disk, written in this process."""

from pathlib import Path

import soundfile
from tiny import RATE, MemoryStore

from sonar.data.audio import file_sha256
from sonar.data.manifest import Clip, manifest_hash
from sonar.data.shard_folder import ShardFolder
from sonar.data.shard_parts import write_part
from sonar.data.shard_plan import plan_parts
from sonar.data.shards import encode_guarded, finish


def write_store(folder: Path, made: MemoryStore) -> Path:
    """Shards of a store; its audio files lie beside `folder`."""
    audio, clips = folder.with_name(f"{folder.name}-audio"), []
    audio.mkdir(parents=True)
    for row, clip in enumerate(made.clips):
        path = audio / f"{row}.wav"
        soundfile.write(path, made.waveforms[row], RATE, subtype="PCM_16")
        clips.append(clip._replace(path=str(path), sha256=file_sha256(str(path))))
    return write_clips(folder, clips)


def write_clips(folder: str | Path, clips: list[Clip]) -> Path:
    """Shards of clips, as `write_shards` makes them, without Ray."""
    target = ShardFolder(folder)
    finish([write_part(part, target, encode_guarded) for part in plan_parts(clips)], target, manifest_hash(clips))
    return Path(folder)
