"""An exported encoder says the same as the one that was exported, or is not kept."""

from pathlib import Path

import pytest
import torch
from tiny import changed, make_base, tensors

from sonar import export
from sonar.checkpoint import load_checkpoint
from sonar.export import export_beats


def test_an_exported_encoder_reloads_equal_bit_by_bit(tmp_path: Path) -> None:
    base = make_base()
    difference = export_beats(base, tmp_path / "beats.pt")
    assert difference == 0
    reloaded = load_checkpoint(tmp_path / "beats.pt")
    assert changed(tensors(base.encoder), tensors(reloaded.encoder)) == []
    assert reloaded.encoder.config == base.encoder.config
    assert reloaded.tokenizer is None and reloaded.predictor is None


def test_the_file_holds_what_public_code_reads(tmp_path: Path) -> None:
    export_beats(make_base(), tmp_path / "beats.pt")
    content = torch.load(tmp_path / "beats.pt", weights_only=True)
    assert content.keys() == {"cfg", "model"}
    assert content["cfg"]["encoder_embed_dim"] == 32
    assert all(isinstance(value, torch.Tensor) for value in content["model"].values())


@pytest.mark.parametrize("offset", [1e-3, float("nan")])
def test_an_export_that_differs_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    def tampered(path: Path) -> object:
        loaded = load_checkpoint(path)
        with torch.no_grad():
            loaded.encoder.transformer.layers[0].fc1.bias.add_(offset)
        return loaded

    monkeypatch.setattr(export, "load_checkpoint", tampered)
    with pytest.raises(ValueError, match=r"the exported encoder differs by .*; not kept"):
        export_beats(make_base(), tmp_path / "beats.pt")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "beats.pt").write_text("an earlier export", encoding="utf-8")
    with pytest.raises(ValueError, match="not kept"):
        export_beats(make_base(), tmp_path / "beats.pt")
    assert (tmp_path / "beats.pt").read_text(encoding="utf-8") == "an earlier export"
