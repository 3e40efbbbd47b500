"""A decoder with a planted fault, in a module that its process imports in no time."""

import os
import signal

from sonar.data.shard_audio import AudioSlice, Encoded, encode_slice


def crash_on_the_third(asked: AudioSlice) -> Encoded:
    if "/02.wav" in asked.path:
        os.kill(os.getpid(), signal.SIGSEGV)
    return encode_slice(asked)
