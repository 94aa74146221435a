"""Image encoders: the SigLIP tower of PaliGemma, and a small convolutional one for models trained from scratch.

Both map `(M, 3, S, S)` images in [-1, 1] to `(M, tokens, vision_width)`. Attribute names of the SigLIP tower are those
of the published weights, so that loading them is a change of prefix (SigLIP: arXiv 2303.15343; layout as in
transformers' SiglipVisionModel).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from e0_policy.model_config import E0Config

_EPS = 1e-6


class EncoderAttention(nn.Module):
    """Bidirectional multi-head attention with biases, `(M, T, width)` to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend every token to every token."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return self.out_proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class EncoderMlp(nn.Module):
    """Two linear layers with the tanh form of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., width)` to the same."""
        return self.fc2(gelu(self.fc1(x), approximate="tanh"))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(width, eps=_EPS)
        self.self_attn = EncoderAttention(width, heads)
        self.layer_norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = EncoderMlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """`(M, T, width)` to the same."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class PatchEmbeddings(nn.Module):
    """Non-overlapping patches, projected, with a learned embedding per position."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.vision_width, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding((config.image_size // config.patch_size) ** 2, config.vision_width)

    def forward(self, images: Tensor) -> Tensor:
        """`(M, 3, S, S)` to `(M, (S / patch)^2, vision_width)`, row by row."""
        return self.patch_embedding(images).flatten(2).transpose(1, 2) + self.position_embedding.weight


class Encoder(nn.Module):
    """A stack of layers."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        layer = (config.vision_width, config.vision_heads, config.vision_mlp)
        self.layers = nn.ModuleList(EncoderLayer(*layer) for _ in range(config.vision_depth))
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """`(M, T, width)` to the same."""
        again = self.checkpointing and torch.is_grad_enabled()
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if again else layer(x)
        return x


class SiglipTower(nn.Module):
    """SigLIP without its pooling head; one set of weights for all views."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.vision_width, eps=_EPS)
        self.tokens = (config.image_size // config.patch_size) ** 2

    def forward(self, images: Tensor, view: int) -> Tensor:
        """Encode `(M, 3, S, S)` images; every view is treated alike."""
        return self.post_layernorm(self.encoder(self.embeddings(images)))


class ConvStem(nn.Module):
    """One view's convolutions: a grid of tokens, one token of key points and one of the whole grid.

    A policy trained from scratch must localise to millimetres. The key points are a spatial softmax with a learned
    sharpness; the flat branch sees every cell with a weight of its own. Together they learn positions much faster
    than patches do.
    """

    def __init__(self, config: E0Config, channels: tuple[int, int, int] = (16, 48, 96), keypoints: int = 32) -> None:
        super().__init__()
        width, cells = config.vision_width, config.image_size // 8
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise((3, *channels)))
        self.norms = nn.ModuleList(nn.GroupNorm(8, c) for c in channels)
        self.grid = nn.Conv2d(channels[2], width, 2, 2)
        self.heatmaps = nn.Conv2d(channels[2], keypoints, 1)
        self.sharpness = nn.Parameter(torch.full((1,), 2.0))
        self.points = nn.Linear(2 * keypoints, width)
        self.squeeze = nn.Conv2d(channels[2], 16, 1)
        self.flat = nn.Linear(16 * cells * cells, width)

    def forward(self, images: Tensor) -> Tensor:
        """`(M, 3, S, S)` to `(M, (S / 16)^2 + 2, vision_width)`."""
        x = images
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nn.functional.silu(norm(conv(x)))
        grid = self.grid(x).flatten(2).transpose(1, 2)
        heat = (self.heatmaps(x).float() * self.sharpness).flatten(2).softmax(-1).unflatten(2, x.shape[2:])
        axis = torch.linspace(-1.0, 1.0, x.shape[-1], device=x.device)
        across, down = heat.sum(2) @ axis, heat.sum(3) @ axis
        points = self.points(torch.cat([across, down], -1).to(x.dtype))
        flat = self.flat(self.squeeze(x).flatten(1))
        return torch.cat([grid, points[:, None], flat[:, None]], 1)


class ConvTower(nn.Module):
    """A convolutional stem per view, a position embedding per view, then `vision_depth` transformer layers."""

    def __init__(self, config: E0Config) -> None:
        super().__init__()
        self.stems = nn.ModuleList(ConvStem(config) for _ in config.views)
        self.tokens = (config.image_size // config.patch_size) ** 2 + 2
        self.position_embedding = nn.Parameter(torch.randn(len(config.views), self.tokens, config.vision_width) * 0.02)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.vision_width, eps=_EPS)

    def forward(self, images: Tensor, view: int) -> Tensor:
        """Encode `(M, 3, S, S)` images of the view with this index."""
        x = self.stems[view](images) + self.position_embedding[view]
        return self.post_layernorm(self.encoder(x))


def make_tower(config: E0Config) -> SiglipTower | ConvTower:
    """The image encoder that the configuration names."""
    return SiglipTower(config) if config.vision == "siglip" else ConvTower(config)
