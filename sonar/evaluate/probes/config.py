"""What a probe is: its kind, and the candidates that it chooses from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class AttentiveConfig:
    """The attentive probe: learned queries pool the patches of the last layer, and a linear layer reads them.

    All values [inferred].

    Attributes:
        num_queries: ways of pooling, read side by side.
        lrs: candidate peak learning rates of AdamW; cosine to 0.
        weight_decays: candidate weight decays.
        epochs: passes over the training clips.
        batch_size: clips of a step.
        max_gigabytes: the largest array of patches of a split that is worked on.
    """

    num_queries: int = 2
    lrs: tuple[float, ...] = (3e-3, 3e-2)
    weight_decays: tuple[float, ...] = (1e-2, 1.0)
    epochs: int = 30
    batch_size: int = 64
    max_gigabytes: float = 4.0

    def __post_init__(self) -> None:
        """Refuse a probe that cannot be trained."""
        for name in ("num_queries", "epochs", "batch_size", "max_gigabytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"attentive.{name} is {getattr(self, name)}; it must be positive")
        if not self.lrs or min(self.lrs) <= 0 or not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(
                f"attentive.lrs {list(self.lrs)} must be positive and weight_decays {list(self.weight_decays)} not "
                "negative, one of each or more"
            )


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """The frozen probe. Where several candidates are named, one is chosen, see `run_probe`.

    Attributes:
        probe: ridge: linear, least squares in closed form; logistic: linear, by cross-entropy; knn: vote of the
            nearest training clips by cosine; attentive: pooling of the patches that is learned.
        clip_seconds: clips are cropped to this length in seconds before they are embedded.
        layer: last: the encoder's output; mean: of all layers' outputs; best: the layer that is chosen as a candidate
            is.
        penalties: candidates of ridge.
        inverse_penalties: candidates of logistic, scikit-learn's C [inferred].
        neighbours: candidates of knn; where there are fewer training clips, all of them vote [inferred].
        temperature: of knn: a neighbour of cosine s votes with exp(s / temperature) (0.07: DINO, arXiv:2104.14294).
        attentive: of attentive.
        num_folds: folds of the choice, where it is made within the training split.
        seed: of attentive; the others draw nothing.
    """

    probe: Literal["knn", "ridge", "logistic", "attentive"] = "ridge"
    clip_seconds: float = 10.0
    layer: Literal["last", "mean", "best"] = "last"
    penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1000.0)
    inverse_penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    neighbours: tuple[int, ...] = (1, 5, 10, 20)
    temperature: float = 0.07
    attentive: AttentiveConfig = field(default_factory=AttentiveConfig)
    num_folds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse candidates that no probe can have."""
        for name in ("penalties", "inverse_penalties", "neighbours"):
            candidates = getattr(self, name)
            if not candidates or min(candidates) <= 0:
                raise ValueError(f"{name} is {list(candidates)}; give one positive candidate or more")
        if self.num_folds < 2:
            raise ValueError(f"num_folds is {self.num_folds}; a candidate is chosen on two folds or more")
        if self.clip_seconds <= 0 or self.temperature <= 0:
            raise ValueError(f"clip_seconds {self.clip_seconds} and temperature {self.temperature} must be positive")
        if self.probe == "attentive" and self.layer != "last":
            raise ValueError(
                f"layer is {self.layer!r}; the attentive probe reads the patches of the last layer: set last"
            )
