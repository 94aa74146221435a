"""What a CPU computes in training, against the plain formulas of `gemma` that everything else runs."""

from __future__ import annotations

import pytest
import torch

from e0_policy import cpu_training
from e0_policy.gemma import Block, Condition, attend, rotary


def answer(block: Block, x: torch.Tensor, condition: Condition | None, mask: torch.Tensor) -> list[torch.Tensor]:
    """Output of a whole block, and the gradients of its input, weights and conditioning."""
    inputs = [x.clone().requires_grad_()]
    if condition is not None:
        inputs.append(condition.embedding.clone().requires_grad_())
        condition = Condition(inputs[1], condition.select)
    normed, gate = block.input_layernorm(inputs[0], condition)
    q, k, v = block.self_attn.project(normed, rotary(torch.arange(x.shape[1])[None], 4, 10000.0))
    out = block.residual(inputs[0], attend(q, k, v, mask), gate, condition)
    weights = list(block.parameters())
    torch.manual_seed(1)
    return [out, *torch.autograd.grad((out * torch.randn_like(out)).sum(), [*inputs, *weights])]


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("choices", [0, 1, 2])
def test_values_and_gradients_are_those_of_the_plain_formulas(
    monkeypatch: pytest.MonkeyPatch, choices: int, kv_heads: int
) -> None:
    torch.manual_seed(0)
    block = Block(8, 12, 4, kv_heads, 4, 6 if choices else None)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, mask = torch.randn(3, 5, 8) * 3.0, torch.rand(3, 1 if choices == 1 else 5, 5) < 0.7
    mask[..., 0] = True
    clean = torch.arange(5) < torch.tensor([[0], [2], [5]])
    select = torch.stack([~clean, clean], -1).float() if choices == 2 else None
    condition = Condition(torch.randn(3, choices, 6), select) if choices else None
    ours = answer(block, x, condition, mask)
    monkeypatch.setattr(cpu_training, "applies", lambda x: False)
    for got, want in zip(ours, answer(block, x, condition, mask), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_autocast_gives_the_next_layer_what_it_would_have_made_of_it() -> None:
    x, row = torch.randn(2, 3, 8, requires_grad=True), torch.randn(2, 1, 8)
    wide = cpu_training.modulate(x, row, row, 1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(cpu_training.modulate(x, row, row, 1e-6), wide.bfloat16())
        assert cpu_training.gated(x, wide.bfloat16(), row).dtype == torch.float32, "the residual stream stays wide"
