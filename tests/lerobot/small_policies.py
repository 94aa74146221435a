"""Policies of LeRobot's with random weights, small enough for any machine; needs LeRobot, and no network.

    .venv-lerobot/bin/python tests/lerobot/small_policies.py FOLDER act diffusion smolvla pi0 pi05

pi0 and pi0.5 have no small variant, and SmolVLA's backbone is named on the hub: `cut_down` makes their towers small and
`tokenizer` writes a text tokenizer of single bytes. pi0 and pi0.5 of LeRobot 0.4.4 need transformers as openpi patches
it (openpi's README, `transformers_replace`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

VIEWS, PX, WORDS = ("base", "wrist"), 64, 320
SPECIAL = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "<image>",
    "<fake_token_around_image>",
    "<global-img>",
    "<end_of_utterance>",
)
KINDS: dict[str, dict[str, Any]] = {
    "act": {
        **{"chunk_size": 16, "n_action_steps": 8, "dim_model": 64, "n_heads": 2, "dim_feedforward": 64},
        **{"n_encoder_layers": 1, "n_vae_encoder_layers": 1, "pretrained_backbone_weights": None},
    },
    "diffusion": {
        **{"n_obs_steps": 2, "horizon": 16, "n_action_steps": 8, "down_dims": (32, 64), "num_inference_steps": 4},
        **{"crop_shape": (56, 56), "diffusion_step_embed_dim": 32, "spatial_softmax_num_keypoints": 8},
    },
    "smolvla": {"chunk_size": 16, "n_action_steps": 8, "resize_imgs_with_padding": (128, 128), "num_vlm_layers": 2,
                "num_steps": 4, "expert_width_multiplier": 0.5},
    "pi0": {"chunk_size": 16, "n_action_steps": 8, "num_inference_steps": 4, "dtype": "float32"},
    "pi05": {"chunk_size": 16, "n_action_steps": 8, "num_inference_steps": 4, "dtype": "float32"},
}  # fmt: skip


def cut_down() -> None:
    """Make the towers of pi0 and pi0.5 small, wherever they are built from now on."""
    from lerobot.policies.pi0 import modeling_pi0
    from lerobot.policies.pi05 import modeling_pi05

    for module in (modeling_pi0, modeling_pi05):
        whole, expert, sizes = module.PaliGemmaForConditionalGeneration, module.GemmaForCausalLM, module.GemmaConfig

        def vlm(config: Any, whole: Any = whole) -> Any:
            eyes, text = config.vision_config, config.text_config
            eyes.projection_dim, text.vocab_size = text.hidden_size, WORDS
            eyes.hidden_size, eyes.intermediate_size, eyes.num_hidden_layers, eyes.num_attention_heads = 64, 64, 1, 2
            return whole(config)

        def head(config: Any, expert: Any = expert) -> Any:
            config.vocab_size = WORDS
            return expert(config)

        def variant(name: str, sizes: Any = sizes) -> Any:
            width = 64 if name == "gemma_2b" else 32
            return sizes(width=width, depth=2, mlp_dim=64, num_heads=2, num_kv_heads=1, head_dim=32)

        module.PaliGemmaForConditionalGeneration = vlm
        module.GemmaForCausalLM, module.get_gemma_config = head, variant


def tokenizer(folder: Path) -> Path:
    """Write a tokenizer of bytes, and beside it what SmolVLA reads of its backbone."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    letters = pre_tokenizers.ByteLevel.alphabet()
    words = {word: i for i, word in enumerate((*SPECIAL, *sorted(letters)))}
    plain = Tokenizer(models.BPE(words, [], unk_token="<unk>"))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    images = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
              "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>"}  # fmt: skip
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, extra_special_tokens=images, **names)
    SmolVLMProcessor(SmolVLMImageProcessor(), fast, SmolVLMVideoProcessor()).save_pretrained(folder)
    text = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 32,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": WORDS, "pad_token_id": 0}  # fmt: skip
    eyes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "patch_size": 16, "image_size": 128}  # fmt: skip
    SmolVLMConfig(
        text_config=text, vision_config=eyes, image_token_id=4, scale_factor=2, pad_token_id=0
    ).save_pretrained(folder)
    return folder


def statistics(home: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    """Of a dataset in which the arm stays within hundredths of a radian of `home` `(8,)`."""

    def around(mean: torch.Tensor, std: torch.Tensor) -> dict[str, torch.Tensor]:
        reach = {"min": mean - 3 * std, "max": mean + 3 * std, "q01": mean - 2 * std, "q99": mean + 2 * std}
        return {"mean": mean, "std": std, **reach}

    told = {"observation.state": around(home, torch.full((8,), 0.1)), "action": around(home, torch.full((8,), 0.003))}
    half, quarter = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    return {**told, **{f"observation.images.{view}": around(half, quarter) for view in VIEWS}}


def make(kind: str, folder: Path, home: torch.Tensor, text: Path) -> int:
    """Write a `pretrained_model` folder; returns the number of parameters."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
    from lerobot.processor import tokenizer_processor

    torch.manual_seed(0)
    inputs = {f"observation.images.{v}": PolicyFeature(FeatureType.VISUAL, (3, PX, PX)) for v in VIEWS}
    inputs["observation.state"] = PolicyFeature(FeatureType.STATE, (8,))
    own = {**KINDS[kind], **({"vlm_model_name": str(text)} if kind == "smolvla" else {})}
    config = make_policy_config(
        kind,
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (8,))},
        device="cpu",
        push_to_hub=False,
        **own,
    )
    policy = get_policy_class(kind)(config)
    named = tokenizer_processor.AutoTokenizer.from_pretrained
    tokenizer_processor.AutoTokenizer.from_pretrained = lambda name: named(str(text))
    before, after = make_pre_post_processors(config, dataset_stats=statistics(home))
    tokenizer_processor.AutoTokenizer.from_pretrained = named
    folder.mkdir(parents=True, exist_ok=True)
    for part in (policy, before, after):
        part.save_pretrained(folder)
    return sum(parameter.numel() for parameter in policy.parameters())


def main() -> None:
    """Write the folders that are named."""
    out = Path(sys.argv[1])
    text = tokenizer(out / "tokenizer").resolve()
    cut_down()
    home = torch.tensor([0.0, -0.7854, 0.0, -2.3562, 0.0, 1.5708, 0.7854, 1.0])  # the FR3's
    for kind in sys.argv[2:] or KINDS:
        print(f"{kind}: {make(kind, out / kind, home, text) / 1e6:.2f} M parameters", flush=True)


if __name__ == "__main__":
    main()
