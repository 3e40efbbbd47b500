"""Bioacoustics: how much animal sound can an encoder learn before it forgets the rest?

Command: python sweeps/bio.py [--data DIR --prior DIR ...] [--smoke], or ray submit cluster/local.yaml sweeps/bio.py
Cost:    see the result table in README.md; `--smoke` takes minutes on two cores.
Expect:  DCPT at the forgetful end; SONAR near the base's retention; the replay ratio decides most of it.
"""

from sonar import DistillConfig, SamplingConfig, Sweep, TrainingConfig, TrialConfig, log_uniform, main, uniform

SWEEP = Sweep(
    domain="bio",
    base=TrialConfig(
        sampling=SamplingConfig(num_clusters=16),
        distill=DistillConfig(tokenizer_weight=1e4),
        training=TrainingConfig(clip_seconds=2.0, tokenizer_steps=60, model_steps=120, predictor_steps=30),
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
