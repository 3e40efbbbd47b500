"""TrialConfig: the whole of one run, one field per stage; and the presets that are baselines of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sonar.config import override
from sonar.data.sampling import SamplingConfig
from sonar.evaluate.probe import ProbeConfig
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
    probe=ProbeConfig(clip_seconds=3.0),
    training=TrainingConfig(clip_seconds=2.0, tokenizer_steps=40, model_steps=80, predictor_steps=20),
)
"""Two cores and corpora of some hundred clips of a few seconds: a trial of minutes. The paper's lambda_reg of 1e6
nearly pins the tokenizer, so the base configuration starts at 1e4."""

_DCPT: dict[str, Any] = {
    "sampling.replay_ratio": 0.0,
    "distill.tokenizer_weight": 0.0,
    "distill.model_weight": 0.0,
    "distill.contrastive_weight": 0.0,
    "codebook.revival": "none",
}
_NO_TRAINING: dict[str, Any] = {
    "training.tokenizer_steps": 0,
    "training.model_steps": 0,
    "training.head_steps": 0,
    "training.predictor_steps": 0,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "sonar": {},
    "base": _NO_TRAINING,
    "dcpt": _DCPT,
    "dcpt-cold": {
        **_DCPT,
        "training.reset_heads": True,
        "training.head_steps": 0,
        "training.predictor_steps": 0,
    },
}
"""Configuration changes by name: SONAR as configured; no adaptation; DCPT, which resumes BEATs pre-training on
new audio alone; DCPT with random heads, as from a public checkpoint, which has none."""


def apply_preset(config: TrialConfig, name: str) -> TrialConfig:
    """`config` with a preset's changes.

    Raises:
        ValueError: no preset has this name.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return override(config, PRESETS[name])
