"""Kernels against torch: on a GPU as they are, otherwise interpreted on the CPU at tiny sizes in float32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear, rms_norm, softmax

from e0_policy import diffusion
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import Engine
from e0_policy.fused import Layer, Norm
from e0_policy.gemma import rotary, rotate
from e0_policy.model import E0Model
from tests.e0_policy.test_engine import agreement, observations
from tests.e0_policy.tiny import tiny_model

ON_GPU = torch.cuda.is_available()
pytest.importorskip("triton", reason="triton is not installed (torch's CUDA wheels bring it)")

from e0_policy import gpu_path  # noqa: E402
from e0_policy.gpu_path import GpuBuffers, GpuPath, Modulation  # noqa: E402
from e0_policy.gpu_tiles import Tile, Tiles  # noqa: E402

DEVICE = "cuda" if ON_GPU else "cpu"
HEADS, SIZE, WIDTH, MLP, PREFIX = 2, 64, 128, 128, 21
CONFIG = {
    "heads": HEADS, "head_dim": SIZE, "expert_width": WIDTH, "expert_mlp": MLP,
    "vision": "siglip", "patch_size": 8, "vision_depth": 2, "vision_width": 32,
}  # fmt: skip
SMALL = Tiles(
    qkv=Tile(16, 16, 32),
    attend=Tile(16, 16, splits=3, stages=2),
    out=Tile(16, 32, 32, splits=4),
    gate_up=Tile(32, 16, 64),
    down=Tile(16, 64, 32),
)


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gpu_path, "PREFIX_ATTEND", Tile(16, 16, splits=2, stages=2))
    with torch.inference_mode():
        yield


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, atol=2e-4, rtol=2e-4)


def buffers(tokens: int, samples: int) -> GpuBuffers:
    """Random inputs, and outputs that nobody has written yet."""
    torch.manual_seed(tokens)
    rows, total = tokens * samples, PREFIX + tokens
    cos, sin = rotary(torch.arange(total)[None], SIZE, 1e4)
    cache = torch.randn(samples, 1, total, SIZE), torch.randn(samples, 1, total, SIZE)
    shapes = {"xs": WIDTH, "squares": WIDTH, "q": HEADS * SIZE, "attended": HEADS * SIZE, "hidden": MLP}
    made = {name: torch.full((rows, width), torch.nan) for name, width in shapes.items()}
    made |= {"work": torch.full((1 << 16,), torch.nan), "stats": torch.full((1 << 12,), torch.nan)}
    there = {name: t.to(DEVICE) for name, t in made.items()}
    turns = [(cos[:, :, part].to(DEVICE), sin[:, :, part].to(DEVICE)) for part in (slice(PREFIX), slice(PREFIX, None))]
    arrivals = torch.zeros(1 << 8, dtype=torch.int32, device=DEVICE)
    return GpuBuffers(PREFIX, [tuple(t.to(DEVICE) for t in cache)], *turns, **there, arrivals=arrivals)


def random_layer() -> tuple[Layer, list[Norm]]:
    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE) * shape[-1] ** -0.5

    layer = Layer(draw((HEADS + 2) * SIZE, WIDTH), draw(WIDTH, HEADS * SIZE), draw(2 * MLP, WIDTH), draw(WIDTH, MLP))
    return layer, [Norm(*(torch.randn(WIDTH, device=DEVICE) for _ in range(3))) for _ in range(2)]


@pytest.mark.parametrize(("tokens", "samples", "committed"), [(5, 1, 0), (16, 1, 3), (21, 2, 4), (40, 1, 0)])
def test_a_layer_kernel_by_kernel(tokens: int, samples: int, committed: int) -> None:
    """Ragged rows, committed rows with modulations of their own, partial sums: each kernel from its own inputs."""
    b, (layer, (noisy, held)) = buffers(tokens, samples), random_layer()
    config, rows = tiny_model(**CONFIG).config, tokens * samples
    clean = torch.arange(tokens, device=DEVICE)[:, None] < committed
    flags = clean.flatten().view(torch.uint8) if committed else None
    norm = noisy.where(clean.repeat(samples, 1), held)
    common = (flags, tokens, SMALL, b)
    x = torch.randn(rows, WIDTH, device=DEVICE)

    gpu_path.enter(x, noisy, held, flags, b, tokens)
    close(b.xs, x * norm.scale)
    modulations = [gpu_path._modulation(n, layer.qkv) for n in (noisy, held)]
    gpu_path.project_qkv(b.layers[0], layer, *modulations, 1, config, *common)
    normed = rms_norm(x, (WIDTH,), None, 1e-6) * norm.scale + norm.shift
    parts = linear(normed, layer.qkv).view(samples, tokens, -1, SIZE).transpose(1, 2)
    turned = rotate(parts[:, : HEADS + 1], b.action_turn)
    close(b.q, turned[:, :HEADS].transpose(1, 2).reshape(rows, -1))
    keys, values = (side[:, 0] for side in b.layers[0])
    close(keys[:, PREFIX:], turned[:, HEADS])
    close(values[:, PREFIX:], parts[:, HEADS + 1])

    total = PREFIX + tokens
    gpu_path.attend(b.q.view(samples, tokens, -1), b.layers[0], b.attended, total, SMALL.attend, b)
    queries = b.q.view(samples, tokens * HEADS, SIZE)
    weights = softmax(queries @ keys.transpose(1, 2) * SIZE**-0.5, -1)
    close(b.attended.view(samples, -1, SIZE), weights @ values)

    want = x + norm.gate * linear(b.attended, layer.out)
    gates, scales = ((getattr(noisy, name), getattr(held, name)) for name in ("gate", "scale"))
    gpu_path.accumulate(b.attended, layer.out, x, gates, scales, SMALL.out, layer.qkv, *common)
    close(x, want)
    close(b.xs, x * norm.scale)

    modulations = [gpu_path._modulation(n, layer.gate_up) for n in (noisy, held)]
    gpu_path.project_gate_up(layer, *modulations, WIDTH // SMALL.out.columns, *common)
    normed = rms_norm(x, (WIDTH,), None, 1e-6) * norm.scale + norm.shift
    gate, up = linear(normed, layer.gate_up).chunk(2, -1)
    close(b.hidden, gelu(gate, approximate="tanh") * up)
    assert not b.arrivals.any(), "counters are ready for the next launch"


@pytest.mark.parametrize("width", [32, 48])
def test_residual_sums_and_norms(width: int) -> None:
    x, branch = (torch.randn(7, width, device=DEVICE) for _ in range(2))
    scale, shift, add = (torch.randn(width, device=DEVICE) for _ in range(3))
    out, before = torch.empty_like(x), x.clone()
    gpu_path.row_norm(x, branch, Norm(scale), out)
    close(x, before + branch)
    close(out, rms_norm(x, (width,), scale, 1e-6))
    gpu_path.row_norm(x, branch, Norm(scale, shift), out, add, centre=True)
    close(x, before + 2 * branch + add)
    close(out, layer_norm(x, (width,), scale, shift, 1e-6))


def engine_with_kernels(model: E0Model, **changes: object) -> Engine:
    engine = Engine(model, SamplerSettings.of(model.config, **changes))
    engine._path = GpuPath(model, engine.settings, SMALL)
    return engine


@pytest.mark.parametrize(
    ("model_changes", "changes", "committed"),
    [
        ({}, {"steps": 2}, 0),
        ({}, {"samples": 2}, 2),
        ({"token_layout": "step_token"}, {"sampling": "sampled"}, 2),
        ({"columns": 2}, {"steps": 2}, 2),
    ],
)
def test_kernels_equal_eager(model_changes: dict[str, object], changes: dict[str, object], committed: int) -> None:
    """The whole way, prefix and steps, in float32."""
    if ON_GPU:
        pytest.skip("float32 takes torch's operations on a GPU; see the last test")
    model = tiny_model(**CONFIG, **model_changes)
    engine = engine_with_kernels(model, **{"steps": 1, **changes})
    assert agreement(model, engine, 3, committed) >= 0.999


def test_a_wrong_modulation_is_noticed() -> None:
    """Mutation of the test above: the shift of one norm is lost."""
    if ON_GPU:
        pytest.skip("as above")
    model = tiny_model(**CONFIG)
    engine = engine_with_kernels(model, steps=2)
    for step in engine._path.modulations:
        step[1] = Modulation(step[1].scale, step[1].gate, torch.zeros_like(step[1].add))
    assert agreement(model, engine, 3) < 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="no CUDA GPU")
@pytest.mark.parametrize("committed", [0, 2])
@pytest.mark.parametrize("changes", [{}, {"samples": 3}, {"noise": "redraw", "alpha": 0.5}])
def test_captured_kernels_are_as_close_as_torch_in_bfloat16(changes: dict[str, object], committed: int) -> None:
    """Logits of the first step against float32: not further than twice what torch's bfloat16 operations are."""
    size = {**CONFIG, "mlp": 128, "width": 128, "bins": 256, "steps": 1}
    exact, model = (tiny_model(**size).cuda() for _ in range(2))
    for parameter in [*exact.parameters(), *model.parameters()]:
        parameter.data = (parameter.data * 0.3).bfloat16().float()
    model = model.bfloat16()
    errors = {}
    for batch, _ in observations(model, 3, committed):
        settings = SamplerSettings.of(model.config, **changes)
        noise = diffusion.draw_noise(model.config, settings, settings.samples, torch.Generator("cuda").manual_seed(1))
        engine = Engine(model, settings, kernels=True)
        assert isinstance(engine._path, GpuPath)
        want = Engine(exact, settings).sample(batch, noise).entropy
        errors["kernels"] = (engine.sample(batch, noise).entropy - want).abs().max()
        errors["eager"] = (model.sample(replace(batch.to("cuda")), settings, noise).entropy - want).abs().max()
        assert errors["kernels"] <= 2.0 * errors["eager"] + 1e-3
