"""TrialConfig: the whole of one run, one field per stage; and the presets that are baselines of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sonar.config import override, to_dict
from sonar.data.sampling import SamplingConfig
from sonar.evaluate.curve import EvaluationConfig
from sonar.evaluate.probes.config import ProbeConfig
from sonar.model.codebook import CodebookConfig
from sonar.train.objective import DistillConfig
from sonar.train.optim import OptimConfig
from sonar.train.pretrain import PretrainConfig
from sonar.train.settings import AdaptConfig, TrainingConfig


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """The model that is adapted.

    Attributes:
        checkpoint: a BEATs file or a folder of ours; None: a small base is pre-trained on the prior corpora.
        tokenizer: the tokenizer file that belongs to a BEATs file; None: it is in the folder.
        pretrain: the small base that is built where `checkpoint` is None.
    """

    checkpoint: str | None = None
    tokenizer: str | None = None
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One trial: what is adapted, on what, how, and how it is judged. Defaults are the paper preset."""

    base: BaseConfig = field(default_factory=BaseConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        """Refuse a term that no clip would ever reach."""
        distill = self.distill
        has_replay = self.sampling.replay_ratio > 0 or self.sampling.retrieval == "all"
        if distill.model_on == "prior" and distill.model_weight > 0 and not has_replay:
            raise ValueError(
                "distill.model_on is 'prior', but sampling.replay_ratio is 0, so there is no prior clip to distil on; "
                "set model_on to all, model_weight to 0, or a ratio above 0"
            )

    def adapt_config(self) -> AdaptConfig:
        """The part that training reads."""
        return AdaptConfig(
            distill=self.distill,
            codebook=self.codebook,
            optim=self.optim,
            training=self.training,
            replay_ratio=self.sampling.replay_ratio,
        )


SMALL_SCALE = TrialConfig(
    sampling=SamplingConfig(num_clusters=16),
    distill=DistillConfig(tokenizer_weight=1e4),
    codebook=CodebookConfig(usage_decay=0.95),
    optim=OptimConfig(lr=5e-4, tokenizer_lr=1e-4),
    probe=ProbeConfig(clip_seconds=3.0),
    training=TrainingConfig(clip_seconds=2.0, tokenizer_steps=40, model_steps=120, predictor_steps=20),
)
"""Two cores, a small base and corpora of some hundred clips of a few seconds: a trial of a minute or two.

The paper's lambda_reg of 1e6 nearly pins the tokenizer, so the base configuration starts at 1e4. A step has 3072 tokens
at most; gamma = 0.95 needs 2048. The tokenizer keeps the paper's rate, the encoder gets a higher one for its few steps:
at 1e-3 for both, the codebook shrank to about ten codes (docs/log.md)."""

Changes = Mapping[str, Any]

_NO_REPLAY: Changes = {"sampling.replay_ratio": 0.0, "sampling.retrieval": "knn"}  # "all" has a ratio of its own
_RANDOM_REPLAY: Changes = {"sampling.retrieval": "random"}
_NO_OCC: Changes = {"distill.contrastive_weight": 0.0, "codebook.revival": "none"}
_NO_TOKENIZER_DISTILLATION: Changes = {"distill.tokenizer_weight": 0.0}
_NO_MODEL_DISTILLATION: Changes = {"distill.model_weight": 0.0}
_NO_DISTILLATION: Changes = {**_NO_TOKENIZER_DISTILLATION, **_NO_MODEL_DISTILLATION}
_ON_ALL_CLIPS: Changes = {"distill.model_on": "all"}  # where there are no prior ones
_NO_OTHER_PULL: Changes = {"distill.l2sp_weight": 0.0, "training.interpolation": 1.0}
_DCPT: Changes = {**_NO_REPLAY, **_NO_DISTILLATION, **_NO_OCC, **_NO_OTHER_PULL}
_NO_TRAINING: Changes = {
    "training.tokenizer_steps": 0,
    "training.model_steps": 0,
    "training.head_steps": 0,
    "training.predictor_steps": 0,
}
_COLD_HEADS: Changes = {"training.reset_heads": True, "training.head_steps": 0, "training.predictor_steps": 0}
_OF_THE_CORPUS = ("sampling.num_clusters", "sampling.num_queries", "sampling.seed")  # not of the method
_PAPER: Changes = {
    f"{section}.{name}": value
    for section in ("sampling", "distill", "codebook")
    for name, value in to_dict(TrialConfig())[section].items()
    if f"{section}.{name}" not in _OF_THE_CORPUS
}

PRESETS: Mapping[str, Changes] = {
    "sonar": {},
    "sonar-paper": {**_PAPER, "training.interpolation": 1.0},
    "sonar-robust": {
        "sampling.uniform_fraction": 0.2,
        "codebook.prior_usage_floor": 0.5,
        "codebook.max_revive_fraction": 0.05,
        "codebook.freeze_fraction": 0.2,
    },
    "base": _NO_TRAINING,
    "dcpt": _DCPT,
    "dcpt-cold": {**_DCPT, **_COLD_HEADS},
    "dcpt-random-replay": {**_RANDOM_REPLAY, **_NO_DISTILLATION, **_NO_OCC, **_NO_OTHER_PULL},
    "only-trss": {**_NO_DISTILLATION, **_NO_OCC, **_NO_OTHER_PULL},
    "only-distillation": {**_NO_REPLAY, **_NO_OCC, **_NO_OTHER_PULL, **_ON_ALL_CLIPS},
    "only-occ": {**_NO_REPLAY, **_NO_DISTILLATION, **_NO_OTHER_PULL},
    "no-trss": _RANDOM_REPLAY,
    "no-occ": _NO_OCC,
    "no-tokenizer-distillation": _NO_TOKENIZER_DISTILLATION,
    "no-model-distillation": _NO_MODEL_DISTILLATION,
    "l2sp": {**_DCPT, "distill.l2sp_weight": 0.1},
    "cassle": {**_DCPT, **_ON_ALL_CLIPS, "distill.model_weight": 1.0, "distill.through_predictor": True},
    "dcpt-interpolated": {**_DCPT, "training.interpolation": 0.5},
    "joint": {"sampling.retrieval": "all", **_NO_DISTILLATION, **_NO_OCC, **_NO_OTHER_PULL},
}
"""Configuration changes by name, on top of whatever is configured: SONAR, its ablations and the baselines.
What each one means, and where its numbers come from, is in docs/method.md."""


def apply_preset(config: TrialConfig, name: str) -> TrialConfig:
    """`config` with a preset's changes.

    Raises:
        ValueError: no preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return override(config, PRESETS[name])
