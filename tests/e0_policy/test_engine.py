from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from e0_policy import diffusion, fused, heads
from e0_policy.checkpoint import load_model, read_checkpoint
from e0_policy.diffusion import SamplerSettings
from e0_policy.engine import SHAPES_KEPT, Engine, EngineError
from e0_policy.model import E0Model
from e0_policy.resources import config_dir
from tests.e0_policy.tiny import random_batch, tiny_model

CASES = [
    ({}, {}),
    ({}, {"noise": "redraw", "alpha": 0.5}),
    ({}, {"noise_schedule": "none", "alpha": 0.1}),
    ({}, {"sampling": "sampled", "noise": "redraw"}),
    ({}, {"samples": 3, "steps": 2, "decode": "mean"}),
    ({}, {"samples": 2, "decode": "expectation"}),
    ({"hybrid_continuous": True, "alpha_infer": 0.1, "noise_schedule": "none"}, {"samples": 2}),
    ({"token_layout": "step_token"}, {}),
    ({"time_cond": "concat_mlp"}, {}),
    ({"time_cond": "concat_mlp", "token_layout": "step_token", "position_embedding": False}, {"steps": 1}),
    ({"proprio_form": "special", "proprio_bins": 16}, {}),
    ({"proprio_form": "text", "mask_absent_views": False}, {}),
    ({"vision": "siglip", "patch_size": 8, "vision_depth": 1, "kv_heads": 2}, {}),
    ({"columns": 2}, {"samples": 2}),
    ({"columns": 1, "token_layout": "step_token", "hybrid_continuous": True}, {"decode": "mean"}),
]


def observations(model: E0Model, count: int, committed: int = 0):
    """Single observations: some without a view, with instructions of several lengths, some with committed rows."""
    for seed in range(count):
        batch = random_batch(model.config, 1, seed)
        batch.view_mask[0, 1] = seed % 3 != 0
        batch.text_mask[:] = torch.arange(model.config.max_text_tokens) < 3 + seed % 4
        batch.committed[:] = committed if seed % 2 else 0
        yield batch, torch.Generator().manual_seed(seed)


def agreement(model: E0Model, engine: Engine, count: int = 24, committed: int = 0) -> float:
    """Share of tokens and entropies that the engine and the eager reference agree on, with the same noise."""
    equal = []
    for batch, generator in observations(model, count, committed):
        noise = diffusion.draw_noise(model.config, engine.settings, engine.settings.samples, generator)
        want, got = model.sample(batch, engine.settings, noise), engine.sample(batch, noise)
        equal.append((want.tokens == got.tokens).float().mean())
        if equal[-1] == 1.0:
            equal.append(torch.isclose(got.entropy, want.entropy, atol=1e-3, rtol=1e-3).float().mean())
            assert (got.mean is None) == (want.mean is None)
            assert (got.flow is None) == (want.flow is None)
            for ours, theirs in ((got.mean, want.mean), (got.flow, want.flow)):
                if ours is not None:
                    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    return torch.stack(equal).mean().item()


@pytest.mark.parametrize(("model_changes", "sampler_changes"), CASES)
def test_fast_equals_eager(model_changes: dict[str, object], sampler_changes: dict[str, object]) -> None:
    model = tiny_model(**model_changes)
    engine = Engine(model, SamplerSettings.of(model.config, **sampler_changes))
    assert agreement(model, engine, committed=2) >= 0.999


@pytest.mark.parametrize("steps", [2, 10])
def test_fast_equals_eager_on_the_shipped_weights(steps: int) -> None:
    """Trained weights, whose branches and gates weigh what they do in use; rows of a plan of its own are committed."""
    found = read_checkpoint(config_dir() / "checkpoint" / "pick_push")
    model = load_model(found)
    settings = SamplerSettings.of(model.config, steps=steps)
    engine, config = Engine(model, settings), model.config
    equal, plan = [], torch.zeros(1, config.prediction_horizon, config.action_dim, dtype=torch.long)
    for seed in range(10):
        batch, committed = random_batch(config, 1, seed), torch.tensor([seed % (config.committed_max + 1)])
        batch = replace(batch, action_tokens=plan, committed=committed)
        noise = diffusion.draw_noise(config, settings, 1, torch.Generator().manual_seed(seed))
        want, got = model.sample(batch, settings, noise), engine.sample(batch, noise)
        assert torch.equal(got.tokens[:, : int(committed)], plan[:, : int(committed)])
        assert want.mean is not None and got.mean is not None
        torch.testing.assert_close(got.mean, want.mean, atol=1e-3, rtol=0.0)
        equal.append((want.tokens == got.tokens).float().mean())
        plan = want.tokens
    assert torch.stack(equal).mean() >= 0.999


def engine_of(model: E0Model) -> Engine:
    return Engine(model, SamplerSettings.of(model.config))


def test_a_wrong_time_is_noticed() -> None:
    """Mutation: times off by one step."""
    model = tiny_model()
    engine = engine_of(model)
    engine._path.norms = [*engine._path.norms[1:], engine._path.norms[-1]]
    assert agreement(model, engine) < 0.999


def test_padding_that_is_fed_back_as_predicted_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: the engine takes every column for real."""
    model = tiny_model(columns=2)
    engine, pad = engine_of(model), diffusion.pad
    sample = engine._path.denoise

    def unpadded(*inputs):
        with monkeypatch.context() as patch:
            patch.setattr(diffusion, "pad", lambda tokens, columns, bins: tokens)
            return sample(*inputs)

    monkeypatch.setattr(engine._path, "denoise", unpadded)
    assert agreement(model, engine) < 0.999
    assert diffusion.pad is pad


@pytest.mark.parametrize("engine", ["fast", "eager"])
@pytest.mark.parametrize("changes", [{"token_layout": "step_token"}, {"hybrid_continuous": True}])
def test_what_is_predicted_behind_the_real_columns_changes_nothing(engine: str, changes: dict[str, object]) -> None:
    """Weights that predict padding alone: nothing trains them, and the real tokens attend to what is fed back."""
    drawn = []
    for shift in (0.0, 5.0):
        model = tiny_model(columns=2, **changes)
        last = model.flow_out if model.config.hybrid_continuous else model.action_out
        with torch.no_grad():
            last.weight[len(last.weight) // 3 * 2 :] += shift
            last.bias[len(last.bias) // 3 * 2 :] += shift * torch.randn(len(last.bias) // 3)
        fast = engine_of(model)
        for batch, generator in observations(model, 4, committed=2):
            noise = diffusion.draw_noise(model.config, fast.settings, 1, generator)
            drawn.append(fast.sample(batch, noise) if engine == "fast" else model.sample(batch, fast.settings, noise))
    for one, two in zip(drawn[:4], drawn[4:], strict=True):
        assert torch.equal(one.tokens[..., :2], two.tokens[..., :2]) and torch.equal(one.entropy, two.entropy)
        assert (one.flow is None) == (two.flow is None)
        assert one.flow is None or torch.equal(one.flow, two.flow)


@pytest.mark.parametrize("engine", ["fast", "eager"])
def test_the_answer_is_read_in_float32(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bfloat16 weights too, whose logits around 12 tie."""
    model, project, seen = tiny_model(bins=256).bfloat16(), heads.project, []
    torch.nn.init.normal_(model.action_out.weight, std=0.02)
    torch.nn.init.constant_(model.action_out.bias, 12.0)

    def recorded(out, hidden, exact):
        seen.append((hidden, exact))
        return project(out, hidden, exact)

    monkeypatch.setattr(heads, "project", recorded)
    fast = engine_of(model)
    ((batch, generator),) = observations(model, 1)
    noise = diffusion.draw_noise(model.config, fast.settings, 1, generator)
    got = fast.sample(batch, noise) if engine == "fast" else model.sample(batch, fast.settings, noise)
    assert [exact for _, exact in seen] == [False, False, False, True]
    parts = seen[-1][0], model.action_out.weight, model.action_out.bias
    kinds = torch.float64, torch.bfloat16
    with torch.inference_mode():
        best, tied = (torch.nn.functional.linear(*(t.to(kind) for t in parts)).argmax(-1).flatten() for kind in kinds)
    assert torch.equal(got.tokens.flatten(), best) and (best != tied).float().mean() > 0.3


def test_a_stale_cache_row_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutation: one prefix row keeps the keys and values of the observation before."""
    model = tiny_model()
    engine = engine_of(model)
    fill = engine._path.fill

    def stale(buffers, x):
        old = [(k[:, :, 2].clone(), v[:, :, 2].clone()) for k, v in buffers.layers]
        fill(buffers, x)
        for (k, v), (old_k, old_v) in zip(buffers.layers, old, strict=True):
            k[:, :, 2], v[:, :, 2] = old_k.nan_to_num(), old_v.nan_to_num()

    monkeypatch.setattr(engine._path, "fill", stale)
    assert agreement(model, engine) < 0.999


@pytest.mark.parametrize(("model_changes", "sampler_changes"), CASES[:8])
def test_replay_reads_every_input(model_changes: dict[str, object], sampler_changes: dict[str, object]) -> None:
    """The logic of the captured graph on a CPU: a recorded run sees nothing but its static inputs."""
    model = tiny_model(**model_changes)
    recorded = []

    def capture(run):
        out = run()
        recorded.append(out)

        def replay() -> None:
            again = run()
            for name, value in vars(again).items():
                if value is not None:
                    getattr(out, name).copy_(value)

        return replay, out

    engine = Engine(model, SamplerSettings.of(model.config, **sampler_changes), capture)
    assert agreement(model, engine, committed=2) >= 0.999
    assert 1 < len(recorded) < 24, "one record per shape"


def test_bytes_and_floats_are_the_same_image() -> None:
    model = tiny_model()
    engine = engine_of(model)
    ((batch, generator),) = observations(model, 1)
    noise = diffusion.draw_noise(model.config, engine.settings, 1, generator)
    raw = torch.randint(0, 256, batch.images.shape, dtype=torch.uint8)
    as_bytes, as_floats = (replace(batch, images=i) for i in (raw, raw.float() / 127.5 - 1.0))
    assert (engine.sample(as_bytes, noise).tokens == engine.sample(as_floats, noise).tokens).all()


def test_prepared_noise_is_used_once() -> None:
    model = tiny_model()
    engine = engine_of(model)
    ((batch, generator),) = observations(model, 1)
    noise = diffusion.draw_noise(model.config, engine.settings, 1, generator)
    engine.prepare(noise)
    assert (engine.sample(batch).tokens == model.sample(batch, engine.settings, noise).tokens).all()
    with pytest.raises(EngineError, match="no noise"):
        engine.sample(batch)


def test_buffers_of_few_shapes_are_kept() -> None:
    model = tiny_model(max_text_tokens=32)
    engine = engine_of(model)
    for length in range(1, 20):
        batch = random_batch(model.config, 1)
        batch.text_mask[:] = torch.arange(32) < length
        engine.sample(batch, diffusion.draw_noise(model.config, engine.settings, 1, torch.Generator()))
    assert len(engine._slots) == SHAPES_KEPT


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(EngineError, match="hybrid_continuous"):
        engine_of(tiny_model(hybrid_continuous=True, time_cond="concat_mlp"))
    with pytest.raises(EngineError, match="kernels need a CUDA GPU"):
        Engine(tiny_model(), SamplerSettings(), kernels=True)
    with pytest.raises(EngineError, match="2 observations"):
        model = tiny_model()
        engine_of(model).sample(random_batch(model.config, 2))


class OnlyOn(TorchDispatchMode):
    """Refuses operations that read or make a tensor elsewhere than on a device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.calls = device, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            assert not isinstance(tensor, torch.Tensor) or tensor.device.type == self.device, f"{func} on the host"
        self.calls += 1
        return out


@pytest.mark.parametrize(("model_changes", "sampler_changes"), CASES)
@pytest.mark.parametrize("committed", [0, 2])
def test_a_captured_run_never_touches_the_host(
    monkeypatch: pytest.MonkeyPatch,
    model_changes: dict[str, object],
    sampler_changes: dict[str, object],
    committed: int,
) -> None:
    """What a CUDA graph forbids, without a GPU: the model is on `meta`, the batch and the noise are on the host.

    Reading a value back and shapes that depend on values raise by themselves there.
    """
    # Only saves memory, and a tensor on `meta` cannot be made a view of another.
    monkeypatch.setattr(fused, "_join", lambda parts: torch.cat([part.weight.data for part in parts]))
    runs = []

    def capture(run):
        with OnlyOn("meta") as mode:
            out = run()
        runs.append(mode.calls)
        return lambda: None, out

    model = tiny_model(**model_changes).to("meta")
    engine = Engine(model, SamplerSettings.of(model.config, **sampler_changes), capture)
    batch, generator = next(iter(observations(model, 1)))
    batch.committed[:] = committed
    noise = diffusion.draw_noise(model.config, engine.settings, engine.settings.samples, generator)
    assert engine.sample(batch, noise).tokens.device.type == "meta"
    assert runs[0] > 20


def test_the_host_is_noticed_in_a_captured_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutations of the test above: a table on the host, and a decision by value."""
    monkeypatch.setattr(diffusion, "row_entropy", lambda logits: torch.zeros(1, 4) + logits.sum())
    with pytest.raises((AssertionError, RuntimeError)):
        test_a_captured_run_never_touches_the_host(monkeypatch, {}, {}, 0)
    monkeypatch.setattr(diffusion, "row_entropy", lambda logits: logits.sum((-1, -2)) if logits.sum() > 0 else logits)
    with pytest.raises(RuntimeError):
        test_a_captured_run_never_touches_the_host(monkeypatch, {}, {}, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
@pytest.mark.parametrize(("model_changes", "sampler_changes"), CASES[:8])
def test_captured_graph_equals_eager(model_changes: dict[str, object], sampler_changes: dict[str, object]) -> None:
    model = tiny_model(**model_changes).cuda()
    engine = Engine(model, SamplerSettings.of(model.config, **sampler_changes))
    for batch, _ in observations(model, 12, committed=2):
        generator = torch.Generator("cuda").manual_seed(0)
        noise = diffusion.draw_noise(model.config, engine.settings, engine.settings.samples, generator)
        batch = batch.to("cuda")
        equal = engine.sample(batch, noise).tokens == model.sample(batch, engine.settings, noise).tokens
        assert equal.float().mean() > 0.99
