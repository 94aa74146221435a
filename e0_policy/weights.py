"""Published weights into an E0 model: PaliGemma, pi0 and pi0.5 (lerobot or openpi names), E0DiffHybrid.

What is loaded, what stays random and what is refused is reported, never guessed. Key names were read in
google/paligemma-3b-pt-224, huggingface/lerobot (policies/pi0, pi05), Physical-Intelligence/openpi
(models_pytorch/gemma_pytorch.py) and Doo-mon/e0 (models/e0_diff_hybrid.py, converted to PyTorch names as openpi does).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from e0_policy.checkpoint import PICKLES
from e0_policy.model import E0Model

_MAX_INDEX_BYTES = 64 * 1024 * 1024
_VLM = r"(?:model\.)?(?:paligemma_with_expert\.paligemma\.)?(?:model\.)?"
_ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "params/_METADATA", "manifest.ocdbt", "params/manifest.ocdbt")
_EXPERT = r"(?:model\.)?paligemma_with_expert\.gemma_expert\.model\."

RENAMES: tuple[tuple[str, str], ...] = (
    (_VLM + r"vision_tower\.(?:vision_model\.)?((?:embeddings|encoder|post_layernorm)\..+)", r"vision.\1"),
    (_VLM + r"multi_modal_projector\.linear\.(.+)", r"projector.\1"),
    (_VLM + r"language_model\.(?:model\.)?embed_tokens\.weight", "backbone.embed_tokens.weight"),
    (_VLM + r"language_model\.(?:model\.)?((?:layers|norm)\..+)", r"backbone.language.\1"),
    (_VLM + r"(?:language_model\.)?lm_head\.weight", "backbone.embed_tokens.weight"),
    (_EXPERT + r"((?:layers|norm)\..+)", r"backbone.expert.\1"),
    (r"(?:model\.)?time_mlp_(in|out)\.(.+)", r"time.mlp_\1.\2"),
    (r"(?:model\.)?action_time_mlp_(in|out)\.(.+)", r"action_time_\1.\2"),
    (r"(?:model\.)?e0_action_(in|out)_proj\.(.+)", r"action_\1.\2"),
    (r"(?:model\.)?action_(in|out)_proj\.(.+)", r"flow_\1.\2"),
    (r"((?:vision|projector)\..+)", r"\1"),
)
"""Published name (whole, as a regular expression) to ours. The output embedding is tied to the input embedding.

The last row is our own pretrained encoder, whose names are those of `named_slots`.
"""


class WeightsError(ValueError):
    """Published weights cannot be read; the message says why and what to give instead."""


@dataclass
class WeightsReport:
    """What became of the tensors.

    Attributes:
        loaded: our names that were filled.
        random: our names that were not.
        refused: "published name: its shape; ours", where shapes differ.
        unused: published names that no tensor of ours corresponds to.

    """

    loaded: list[str] = field(default_factory=list)
    random: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for title in ("random", "refused", "unused"):
            names = getattr(self, title)
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            parts.append(f"{len(names)} {title}" + (": " + "; ".join(names[:12]) + more if names else ""))
        return "\n".join(parts)


def our_name(published: str) -> str | None:
    """Our name of a published tensor, or None if we have no such tensor."""
    for pattern, name in RENAMES:
        if match := re.fullmatch(pattern, published):
            return match.expand(name)
    return None


def load_pretrained(model: E0Model, path: Path) -> WeightsReport:
    """Fill a model in place from a safetensors file, or from a folder with one or several of them.

    A text embedding with more rows than ours is cut: PaliGemma's file pads its 257152 rows to 257216.

    Raises:
        WeightsError: nothing to read, a pickle, a damaged file, or none of its tensors fits.

    """
    ours = named_slots(model)
    report = WeightsReport()
    filled: dict[str, str] = {}
    for name, tensor in _tensors(path):
        target = our_name(name)
        if target is None or target not in ours:
            report.unused.append(name)
        elif target in filled and name.endswith("lm_head.weight"):
            continue
        elif (fitting := _fit(target, tensor, ours[target])) is None:
            report.refused.append(f"{name}: {tuple(tensor.shape)}; ours is {tuple(ours[target].shape)}")
        else:
            with torch.no_grad():
                ours[target].copy_(fitting)
            filled[target] = name
    if not filled:
        raise WeightsError(f"{path} has no tensor that fits this model: {report}")
    report.loaded, report.random = sorted(filled), sorted(ours.keys() - filled.keys())
    return report


def named_slots(model: E0Model) -> dict[str, Tensor]:
    """A model's parameters by name; those of one view of a `ConvTower` are named by the view, not by its number.

    So an encoder that was trained on other views, or on the same in another order, gets to the right places.
    """
    slots: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if stem := re.fullmatch(r"vision\.stems\.(\d+)\.(.+)", name):
            slots[f"vision.stems.{model.config.views[int(stem[1])]}.{stem[2]}"] = parameter
        elif name == "vision.position_embedding":
            slots |= {f"{name}.{view}": parameter.detach()[i] for i, view in enumerate(model.config.views)}
        else:
            slots[name] = parameter
    return slots


def _fit(name: str, tensor: Tensor, ours: Tensor) -> Tensor | None:
    if name == "backbone.embed_tokens.weight" and tensor.dim() == 2 and len(tensor) > len(ours):
        tensor = tensor[: len(ours)]
    return tensor if tensor.shape == ours.shape else None


def _tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor, one at a time; embeddings before the output heads that are tied to them."""
    for file in _files(path):
        try:
            with safe_open(str(file), framework="pt") as opened:
                for name in sorted(opened.keys(), key=lambda n: (n.endswith("lm_head.weight"), n)):
                    yield name, opened.get_tensor(name)
        except SafetensorError as error:
            raise WeightsError(f"{file} is damaged or no safetensors file: {error}") from None


def _files(path: Path) -> list[Path]:
    if any((path / mark).exists() for mark in _ORBAX):
        raise WeightsError(
            f"{path} is an orbax checkpoint (JAX), which is not read; convert it with openpi's "
            "examples/convert_jax_model_to_pytorch.py and give the folder of safetensors that it writes. For "
            "E0DiffHybrid let it also write e0_action_in_proj and e0_action_out_proj, kernels transposed to weights"
        )
    if path.suffix.lower() in PICKLES:
        raise WeightsError(f"{path} is a pickle, which is never opened; give safetensors")
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if not index.is_file():
        if not (found := sorted(path.glob("*.safetensors"))):
            raise WeightsError(f"{path} holds no .safetensors file")
        return found
    if index.stat().st_size > _MAX_INDEX_BYTES:
        raise WeightsError(f"{index} has {index.stat().st_size} bytes; allowed are {_MAX_INDEX_BYTES}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{index} is damaged: {error!r}") from None
    for name in names:
        if Path(str(name)).name != name or not (path / name).is_file():
            raise WeightsError(f"{index} names {name!r}, which is no file in {path}")
    return [path / name for name in names]
