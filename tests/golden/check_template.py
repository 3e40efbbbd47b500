#!/usr/bin/env python3
# ruff: noqa
# fmt: off  (kept as it came with the golden vectors, so that the two can be compared)
"""Compare another BEATs implementation with the golden vectors (numpy only, besides the adapter).

  python check_template.py ADAPTER.py SET_DIR [SET_DIR ...]      exit status 0 iff every check passes

ADAPTER.py defines (arrays are numpy; B = batch, S = samples, T = frames, N = patches):
  load(state_dict: dict[str, np.ndarray], cfg: dict, kind: "beats" | "tokenizer") -> model
  extract_features(model, wave f32[B,S], mask bool[B,S] | None)
        -> (features f32[B,N,D], patch_mask bool[B,N] | None); for a fine-tuned model f32[B,C] probabilities
  get_labels(model, wave, mask) -> int[B,N]
optional, compared when present:
  preprocess(model, wave) -> f32[B,T,128]                   normalised fbank
  hidden_states(model, wave, mask) -> list of f32[B,N,D]     [input of layer 0, output of layer 0, ...]
  frame_and_patch_mask(model, wave, mask) -> (bool[B,T], bool[B,N])
  grads(state_dict, cfg, wave, mask, R f32[B,N,D]) -> dict[key, np.ndarray]    see grad.*.json
  vq(weight f32[K,D], cluster_size f32[K], z f32[B,N,D], R, train: bool)
        -> dict(zq=, loss=, idx=, grad_z=, weight=, cluster_size=)            NormEMA quantiser, decay 0.99, beta 1
  kmeans(samples, K, iters) -> (means, bins)                  cosine, initial means = samples[:K]
For a 'base' set directory (no state files) the state dict is rebuilt from fill_value() in synth.py.
"""

import importlib.util, json, os, sys
import numpy as np


def tol_for(name, tols, key, default):
    """6x what the reference itself differs between fp32 and fp64, at least `default` (see README)."""
    t = tols.get(f"{name}:{key}")
    return default if t is None else max(default, 6.0 * t["d64"])


class Report:
    def __init__(self):
        self.n = self.bad = 0
        self.worst = {}

    def cmp(self, what, got, want, tol, where=None):
        self.n += 1
        got, want = np.asarray(got), np.asarray(want)
        if got.shape != want.shape:
            self.bad += 1
            print(f"FAIL {what}: shape {got.shape} != {want.shape}")
            return
        if want.dtype == np.bool_ or np.issubdtype(want.dtype, np.integer):
            d = int((got != want).sum())
        else:
            a, b = got.astype(np.float64), want.astype(np.float64)
            if where is not None:
                a, b = a[where], b[where]
            d = float(np.abs(a - b).max()) if a.size else 0.0
            if not np.isfinite(a).all():
                d = float("inf")
        k = what.split(" ")[0]
        self.worst[k] = max(self.worst.get(k, 0.0), d)
        if d > tol:
            self.bad += 1
            print(f"FAIL {what}: diff {d:.3g} > tol {tol:.3g}")

    def labels(self, what, got, want, margin, eps=1e-3):
        """a label may differ only where best and second-best squared distance differ by < eps"""
        self.n += 1
        got = np.asarray(got)
        if got.shape != want.shape:
            self.bad += 1
            print(f"FAIL {what}: shape {got.shape} != {want.shape}")
            return
        d = got != want
        hard = int((d & (margin > eps)).sum())
        self.worst["labels"] = max(self.worst.get("labels", 0), int(d.sum()))
        if hard or d.sum() > max(1, 0.005 * d.size):
            self.bad += 1
            print(f"FAIL {what}: {int(d.sum())} of {d.size} labels differ, {hard} with a clear margin")


def waves_of(d):
    z = np.load(f"{d}/waves.npz")
    out = {}
    for k in z.files:
        if k.endswith(".wave_i16"):
            b = k[:-9]
            w = z[k]
            m = np.unpackbits(z[f"{b}.padding_mask_packed"], axis=1, count=w.shape[1]).astype(bool)
            out[b] = (w.astype(np.float32) / 32768.0, m)
    return out


def state_of(d, c):
    info = json.load(open(f"{d}/{c}.cfg.json"))
    p = f"{d}/{c}.state.npz"
    if os.path.exists(p):
        z = np.load(p)
        sd = {k: z[k] for k in z.files}
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
        from synth import fill_value

        keys = json.load(open(os.path.join(os.path.dirname(os.path.abspath(d)), "keys", f"{c}.json")))["state_dict"]
        sd = {k: fill_value(k, tuple(v["shape"]), info["seed"], info["cfg"]) for k, v in keys.items()}
    return sd, info["cfg"], info["kind"]


def check_set(ad, d, rep):
    tols = json.load(open(f"{d}/tolerances.json")) if os.path.exists(f"{d}/tolerances.json") else {}
    waves = waves_of(d)
    models = {}
    done_fb = set()
    for e in json.load(open(f"{d}/index.json")):
        c, b, masked = e["cfg"], e["batch"], e["masked"]
        if c not in models:
            sd, cfg, kind = state_of(d, c)
            models[c] = (ad.load(sd, cfg, kind), cfg, kind)
        m, cfg, kind = models[c]
        w, pm = waves[b]
        mk = pm if masked else None
        z = np.load(f"{d}/case.{e['case']}.npz")
        z = {k: z[k] for k in z.files}
        name = f"{c}/{b}{'+mask' if masked else ''}"
        pi = z.get("patch_idx")  # base sets keep a subset of the patches
        sub = (lambda a: a) if pi is None else (lambda a: a[:, pi])
        if kind == "beats":
            out, om = ad.extract_features(m, w, mk)
            ft = cfg.get("finetuned_model")
            rep.cmp(
                f"output {name}",
                out if ft else sub(out),
                z["output"],
                tol_for(name, tols, "output", 2e-5 if ft else 2e-4),
            )
            if masked and "patch_mask" in z and om is not None:
                rep.cmp(f"patch_mask {name}", om, z["patch_mask"], 0)
        else:
            rep.labels(f"labels {name}", ad.get_labels(m, w, mk), z["labels"], z["label_margin"])
        if hasattr(ad, "hidden_states"):
            h = ad.hidden_states(m, w, mk)
            for k in z:
                if k.startswith("hidden_"):
                    rep.cmp(f"hidden {name}:{k}", sub(h[int(k[7:])]), z[k], tol_for(name, tols, k, 2e-4))
        if hasattr(ad, "frame_and_patch_mask") and masked and "frame_mask" in z:
            f, p = ad.frame_and_patch_mask(m, w, mk)
            rep.cmp(f"frame_mask {name}", f, z["frame_mask"], 0)
            rep.cmp(f"patch_mask {name}", p, z["patch_mask"], 0)
        if hasattr(ad, "preprocess") and b not in done_fb and os.path.exists(f"{d}/fbank.{b}.npz"):
            done_fb.add(b)
            f = np.load(f"{d}/fbank.{b}.npz")
            got = ad.preprocess(m, w)
            assert got.shape[1] == int(f["n_frames"]), f"frames {got.shape[1]} != {int(f['n_frames'])}"
            rep.cmp(f"fbank {b}", got[:, :: int(f["stride"])], f["fbank"], tol_for(name, tols, "fbank", 1e-3))
    if hasattr(ad, "preprocess"):
        m = next(iter(models.values()))[0]
        for b, (w, _) in waves.items():
            if b in done_fb or not os.path.exists(f"{d}/fbank.{b}.npz"):
                continue
            f = np.load(f"{d}/fbank.{b}.npz")
            got = ad.preprocess(m, w)
            rep.cmp(
                f"fbank {b}",
                got[:, :: int(f["stride"])],
                f["fbank"],
                tol_for("fbank-only/" + b, tols, "fbank", 1e-3),
            )
    for f in sorted(os.listdir(d)):
        if hasattr(ad, "grads") and f.startswith("grad.") and f.endswith(".npz"):
            info = json.load(open(f"{d}/{f[:-4]}.json"))
            z = np.load(f"{d}/{f}")
            sd, _, _ = state_of(d, f.split(".")[1])
            w, pm = waves[info["batch"]]
            g = ad.grads(sd, info["cfg"], w, pm if info["masked"] else None, z["R"])
            for k in z.files:
                if k.startswith("grad/") and not k.endswith("__loss__"):
                    rep.cmp(f"grad {k[5:]}", g[k[5:]], z[k], 2e-4 * max(1.0, float(np.abs(z[k]).max())))
        if hasattr(ad, "vq") and f == "vq.npz":
            z = np.load(f"{d}/{f}")
            w, cs = z["weight_0"], z["cluster_size_0"]
            for s, train in ((1, True), (2, True), (3, False)):
                o = ad.vq(w, cs, z[f"z_{s}"], z[f"R_{s}"], train)
                for k in ("zq", "loss", "grad_z", "weight", "cluster_size"):
                    rep.cmp(f"vq step{s}:{k}", o[k], z[f"{k}_{s}"], 2e-5)
                rep.cmp(f"vq step{s}:idx", np.asarray(o["idx"]).reshape(-1), z[f"idx_{s}"].reshape(-1), 0)
                w, cs = z[f"weight_{s}"], z[f"cluster_size_{s}"]
            if hasattr(ad, "kmeans"):
                mu, bins = ad.kmeans(z["km_samples"], len(z["km_means"]), 10)
                rep.cmp("kmeans means", mu, z["km_means"], 1e-4)
                rep.cmp("kmeans bins", bins, z["km_bins"], 0)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    spec = importlib.util.spec_from_file_location("adapter", sys.argv[1])
    ad = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ad)
    rep = Report()
    for d in sys.argv[2:]:
        check_set(ad, d.rstrip("/"), rep)
    print("worst differences:", {k: (round(v, 8) if isinstance(v, float) else v) for k, v in rep.worst.items()})
    print(f"{rep.n - rep.bad} of {rep.n} checks pass")
    sys.exit(1 if rep.bad else 0)


if __name__ == "__main__":
    main()
