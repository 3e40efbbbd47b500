"""Bioacoustics: how much animal sound can an encoder learn before it forgets the rest?

Command: python sweeps/bio.py [--data DIR --prior DIR ...] [--smoke]; on a cluster: ray submit, see cluster/README.md
Cost:    a trial took 2 to 5 minutes on one busy core with six small packs (2026-11-24); `--smoke`: 4 minutes in all.
Expect:  DCPT at the forgetful end of the plane; SONAR near the base's retention.
"""

from sonar import (
    DistillConfig,
    ProbeConfig,
    SamplingConfig,
    Sweep,
    TrainingConfig,
    TrialConfig,
    log_uniform,
    main,
    uniform,
)

SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(
        sampling=SamplingConfig(num_clusters=16),
        distill=DistillConfig(tokenizer_weight=1e4),
        probe=ProbeConfig(clip_seconds=3.0),
        training=TrainingConfig(clip_seconds=2.0, tokenizer_steps=40, model_steps=80, predictor_steps=20),
    ),
    space={
        "sampling.replay_ratio": uniform(0.1, 0.7),
        "distill.tokenizer_weight": log_uniform(1e2, 1e6),
        "distill.model_weight": log_uniform(1e-1, 1e2),
        "codebook.usage_decay": uniform(0.9, 0.999),
        "codebook.revive_scale": log_uniform(1.0, 30.0),
    },
    objectives={"plasticity": "max", "forgetting_rate": "min"},
    num_trials=24,
)

if __name__ == "__main__":
    main(SWEEP)
