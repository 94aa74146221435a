from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from e0_policy.model import E0Model
from e0_policy.weights import WeightsError, load_pretrained, our_name
from tests.e0_policy.tiny import tiny_model

SIZES = {"vision": "siglip", "patch_size": 8, "vision_depth": 2}
SIGLIP = [
    "embeddings.patch_embedding.weight",
    "embeddings.patch_embedding.bias",
    "embeddings.position_embedding.weight",
    "post_layernorm.weight",
    "post_layernorm.bias",
    *(
        f"encoder.layers.{i}.{module}.{kind}"
        for i in range(2)
        for module in (
            *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")),
            "layer_norm1",
            "layer_norm2",
            "mlp.fc1",
            "mlp.fc2",
        )
        for kind in ("weight", "bias")
    ),
]
MATRICES = [*(f"self_attn.{p}_proj" for p in "qkvo"), *(f"mlp.{p}_proj" for p in ("gate", "up", "down"))]
BLOCKS = [f"layers.{i}.{m}.weight" for i in range(2) for m in MATRICES]
NORMS = [*(f"layers.{i}.{n}" for i in range(2) for n in ("input_layernorm", "post_attention_layernorm")), "norm"]
GOOGLE = ("vision_tower.vision_model.", "multi_modal_projector.linear.", "language_model.model.")
LEROBOT = tuple(f"model.paligemma_with_expert.paligemma.model.{p}" for p in (*GOOGLE[:2], "language_model."))
OPENPI = tuple(p.removeprefix("model.") for p in LEROBOT)


def checkpoint(model: E0Model, names: tuple[str, str, str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Random tensors under published names, and the name of ours that each belongs to; shapes come from ours."""
    vision, projector, language = names
    pairs = {vision + n: "vision." + n for n in SIGLIP}
    pairs |= {projector + n: "projector." + n for n in ("weight", "bias")}
    pairs |= {language + n: "backbone.language." + n for n in (*BLOCKS, *(f"{n}.weight" for n in NORMS))}
    if "paligemma_with_expert" in language:
        root = language.split("paligemma.model.")[0]
        pairs |= {f"{root}gemma_expert.model.{n}": f"backbone.expert.{n}" for n in BLOCKS}
        for kind in ("weight", "bias"):
            pairs |= {f"{root}gemma_expert.model.{n}.dense.{kind}": f"backbone.expert.{n}.dense.{kind}" for n in NORMS}
            head = root.removesuffix("paligemma_with_expert.")
            pairs |= {f"{head}time_mlp_{io}.{kind}": f"time.mlp_{io}.{kind}" for io in ("in", "out")}
            pairs |= {f"{head}action_{io}_proj.{kind}": f"flow_{io}.{kind}" for io in ("in", "out")}
    ours = dict(model.named_parameters())
    shapes = {published: ours[name].shape if name in ours else (3, 3) for published, name in pairs.items()}
    return {published: torch.randn(shape) for published, shape in shapes.items()}, pairs


def check(model: E0Model, tensors: dict[str, Tensor], pairs: dict[str, str]) -> None:
    ours = dict(model.named_parameters())
    for published, name in pairs.items():
        if name in ours:
            torch.testing.assert_close(ours[name].data, tensors[published], msg=published)


def test_paligemma(tmp_path: Path) -> None:
    """In two files with an index; its embedding has more rows than ours and its head is the embedding."""
    model = tiny_model(**SIZES)
    tensors, pairs = checkpoint(model, GOOGLE)
    embedding = torch.randn(70, 32)
    tensors["language_model.model.embed_tokens.weight"] = embedding
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, chosen in parts.items():
        save_file({n: tensors[n] for n in chosen}, str(tmp_path / file))
    index = {"weight_map": {n: file for file, chosen in parts.items() for n in chosen}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    expert = model.backbone.expert.layers[0].mlp.up_proj.weight.clone()
    report = load_pretrained(model, tmp_path)
    check(model, tensors, pairs)
    torch.testing.assert_close(model.backbone.embed_tokens.weight.data, embedding[:64])
    assert not report.refused and not report.unused
    torch.testing.assert_close(model.backbone.expert.layers[0].mlp.up_proj.weight.data, expert.data)
    assert {"action_in.weight", "proprio_proj.weight", "backbone.expert.norm.dense.weight"} <= set(report.random)
    assert len(report.loaded) + len(report.random) == len(dict(model.named_parameters()))


@pytest.mark.parametrize("names", [LEROBOT, OPENPI], ids=["lerobot", "openpi"])
def test_pi05(tmp_path: Path, names: tuple[str, str, str]) -> None:
    """The only copy of the embedding is the tied head; 32-dimensional action projections are refused."""
    model = tiny_model(**SIZES, hybrid_continuous=True)
    tensors, pairs = checkpoint(model, names)
    root = names[0].split("paligemma.model.")[0]
    head = root.removesuffix("paligemma_with_expert.")
    tensors[f"{head}action_in_proj.weight"] = torch.randn(16, 32)
    del pairs[f"{head}action_in_proj.weight"]
    tensors[f"{root}paligemma.lm_head.weight"] = torch.randn(64, 32)
    pairs[f"{root}paligemma.lm_head.weight"] = "backbone.embed_tokens.weight"
    tensors[f"{root}gemma_expert.lm_head.weight"] = torch.randn(64, 16)
    save_file(tensors, str(tmp_path / "model.safetensors"))
    report = load_pretrained(model, tmp_path / "model.safetensors")
    check(model, tensors, pairs)
    assert report.refused == [f"{head}action_in_proj.weight: (16, 32); ours is (16, 3)"]
    assert report.unused == [f"{root}gemma_expert.lm_head.weight"]
    assert "flow_in.weight" in report.random and "action_out.weight" in report.random
    assert "refused: " in str(report) and "(16, 32)" in str(report)


def test_pi0_has_no_adaptive_norms(tmp_path: Path) -> None:
    """Its time MLP fits `concat_mlp`; its state projection feeds the expert, ours the prefix: unused."""
    model = tiny_model(**SIZES, time_cond="concat_mlp")
    root = "model.paligemma_with_expert.gemma_expert.model."
    tensors = {
        root + "norm.weight": torch.randn(16),
        root + "layers.0.input_layernorm.weight": torch.randn(16),
        "model.action_time_mlp_in.weight": torch.randn(16, 32),
        "model.action_time_mlp_out.bias": torch.randn(16),
        "model.state_proj.weight": torch.randn(16, 32),
    }
    save_file(tensors, str(tmp_path / "model.safetensors"))
    report = load_pretrained(model, tmp_path)
    torch.testing.assert_close(model.backbone.expert.norm.weight.data, tensors[root + "norm.weight"])
    torch.testing.assert_close(model.action_time_in.weight.data, tensors["model.action_time_mlp_in.weight"])
    assert report.unused == ["model.state_proj.weight"]


def test_released_names() -> None:
    """E0DiffHybrid: discrete projections beside the continuous ones of pi0.5."""
    assert our_name("e0_action_in_proj.weight") == "action_in.weight"
    assert our_name("e0_action_out_proj.bias") == "action_out.bias"
    assert our_name("action_out_proj.bias") == "flow_out.bias"
    assert our_name("time_mlp_in.weight") == "time.mlp_in.weight"


def test_bad_files_are_refused(tmp_path: Path) -> None:
    model = tiny_model(**SIZES)
    with pytest.raises(WeightsError, match="never opened"):
        load_pretrained(model, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="holds no"):
        load_pretrained(model, tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(WeightsError, match="damaged"):
        load_pretrained(model, tmp_path)
    save_file({"unrelated": torch.zeros(1)}, str(tmp_path / "a.safetensors"))
    with pytest.raises(WeightsError, match="no tensor that fits"):
        load_pretrained(model, tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../a.safetensors"}}))
    with pytest.raises(WeightsError, match="no file in"):
        load_pretrained(model, tmp_path)


@pytest.mark.parametrize("mark", ["_METADATA", "params/manifest.ocdbt"])
def test_an_orbax_checkpoint_says_what_to_convert_it_with(tmp_path: Path, mark: str) -> None:
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()
    with pytest.raises(WeightsError, match=r"orbax.*convert_jax_model_to_pytorch\.py.*e0_action_in_proj"):
        load_pretrained(tiny_model(), tmp_path)
