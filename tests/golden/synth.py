# ruff: noqa
# fmt: off  (kept as it came with the golden vectors, so that the two can be compared)
"""Deterministic synthetic waveforms and parameter fills (numpy only, no RNG library dependence
beyond numpy.random.RandomState's frozen MT19937 legacy stream for the parameter fill)."""

import zlib
import numpy as np

SR = 16000


def lcg_noise(n, seed):
    """Uniform noise in [-0.5, 0.5): s <- 1664525*s + 1013904223 mod 2^32, value s/2^32 - 0.5."""
    out = np.empty(n, dtype=np.float64)
    s = int(seed) & 0xFFFFFFFF
    for i in range(n):
        s = (1664525 * s + 1013904223) & 0xFFFFFFFF
        out[i] = s / 4294967296.0 - 0.5
    return out


def synth(n, seed, dc=0.0, gain=1.0):
    """Sum of 4 amplitude-modulated sines, one linear chirp and LCG noise, quantised to int16.

    n: samples; seed: int. All constants derive from the seed by a LCG. Returns int16[n];
    the waveform fed to models is int16/32768 (float32, exact)."""
    p = lcg_noise(64, seed * 7919 + 13) + 0.5  # in [0,1)
    t = np.arange(n, dtype=np.float64) / SR
    x = np.zeros(n)
    for k in range(4):
        f = 60.0 * (7000.0 / 60.0) ** p[4 * k]
        a = 0.02 + 0.13 * p[4 * k + 1]
        am = 0.3 + 4.0 * p[4 * k + 2]
        ph = 2 * np.pi * p[4 * k + 3]
        x += a * np.sin(2 * np.pi * f * t + ph) * (0.6 + 0.4 * np.sin(2 * np.pi * am * t))
    f0, f1 = 100 + 900 * p[20], 2000 + 5500 * p[21]
    T = max(n / SR, 1e-9)
    x += 0.1 * np.sin(2 * np.pi * (f0 * t + 0.5 * (f1 - f0) / T * t * t))
    env = 0.01 + 0.08 * (0.5 + 0.5 * np.sin(2 * np.pi * (0.2 + p[22]) * t)) ** 4
    x += env * lcg_noise(n, seed)
    x = gain * x + dc
    return np.clip(np.round(x * 32768.0), -32768, 32767).astype(np.int16)


def fill_value(key, shape, seed, cfg):
    """Deterministic 'trained-like' value for one state-dict entry (float32 array).

    RandomState(crc32(key) ^ seed).standard_normal(shape) scaled by a rule per key:
    see README.md. Shared tensors (relative_attention_bias of layers > 0) use layer 0's key."""
    name = key
    if "relative_attention_bias" in name:
        pre = name.split("encoder.layers.")[0]
        name = pre + "encoder.layers.0.self_attn.relative_attention_bias.weight"
    r = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0x7FFFFFFF)
    z = r.standard_normal(shape) if len(shape) else np.asarray(r.standard_normal())
    last = key.rsplit(".", 1)[-1]
    if key.endswith("initted"):
        v = np.ones(shape)
    elif "quantize." in key and last == "cluster_size":
        v = 1.0 + np.abs(z)
    elif key in ("quantize.embedding.weight", "quantize.embedding.embed_avg"):
        r2 = np.random.RandomState((zlib.crc32(b"quantize.embedding.weight") ^ seed) & 0x7FFFFFFF)
        v = r2.standard_normal(shape)
        v = v / np.linalg.norm(v, axis=-1, keepdims=True)
    elif "layer_norm" in key:
        v = (1.0 + 0.1 * z) if last == "weight" else 0.1 * z
    elif key.endswith("grep_a"):
        v = 1.0 + 0.3 * z
    elif key.endswith("relative_attention_bias.weight"):
        v = 1.0 * z
    elif key.endswith("pos_conv.0.weight_v"):
        v = z * np.sqrt(4.0 / (cfg["conv_pos"] * cfg["encoder_embed_dim"]))
    elif key.endswith("pos_conv.0.weight_g"):
        # g such that ||v|| per kernel tap ~ its norm, times (1 +- 0.1)
        std = np.sqrt(4.0 / (cfg["conv_pos"] * cfg["encoder_embed_dim"]))
        nrm = std * np.sqrt(cfg["encoder_embed_dim"] * (cfg["encoder_embed_dim"] // cfg["conv_pos_groups"]))
        v = nrm * (1.0 + 0.1 * z)
    elif last == "bias":
        v = 0.1 * z
    elif key == "patch_embedding.weight":
        v = z / 16.0
    else:
        gain = 1.0
        if ".q_proj." in key or ".k_proj." in key:
            gain = 1.5
        v = gain * z / np.sqrt(shape[-1])
    return np.asarray(v, dtype=np.float32)
