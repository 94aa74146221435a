from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from e0_policy import diffusion
from e0_policy.action_tokenizer import ActionTokenizer
from e0_policy.diffusion import Denoised, NoiseDraw, SamplerSettings
from e0_policy.model_config import E0Config, ModelConfigError, preset


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config_of(horizon: int, dims: int, bins: int, **changes: object) -> E0Config:
    return preset("nano", prediction_horizon=horizon, action_dim=dims, bins=bins, **changes)


class Bayes:
    """The exact posterior over a table of chunks `(M, H, D)` with probabilities `(M,)`, by brute force."""

    def __init__(self, chunks: Tensor, prior: Tensor, bins: int, alpha: float) -> None:
        self.one_hots = torch.nn.functional.one_hot(chunks, bins).double()  # (M, H, D, K)
        self.prior, self.alpha = prior.double(), alpha

    def log_joint(self, x: Tensor, tau: float) -> Tensor:
        """Log of prior times likelihood, `(B, M)`, from the definition of the channel."""
        mean = (1.0 - tau) * self.alpha * self.one_hots
        squares = (x.double()[:, None] - mean).square().flatten(2).sum(-1)
        dims = mean[0].numel()
        return self.prior.log() - squares / (2 * tau**2) - dims * math.log(tau * math.sqrt(2 * math.pi))

    def __call__(self, x: Tensor, tau: float, clean: Tensor, flow: Tensor | None) -> Denoised:
        weight = self.log_joint(x, tau).softmax(1)
        marginal = torch.einsum("bm,mhdk->bhdk", weight, self.one_hots)
        return Denoised(marginal.clamp(min=1e-30).log().float())


def run(denoise, config: E0Config, count: int, seed: int = 0, **changes: object) -> Tensor:
    chosen = SamplerSettings.of(config, **changes)
    noise = diffusion.draw_noise(config, chosen, count, generator(seed))
    shape = (count, config.prediction_horizon, config.action_dim)
    nothing = torch.zeros(shape, dtype=torch.long), torch.zeros(shape[:2], dtype=torch.bool)
    return diffusion.sample(denoise, noise, chosen, *nothing).tokens


@pytest.mark.parametrize(("steps", "alpha"), [(1, 1.0), (4, 1.0), (10, 1.0), (10, 0.1)])
def test_sampler_draws_from_the_true_distribution(steps: int, alpha: float) -> None:
    """With the ideal denoiser, redrawn noise and sampled tokens the distribution is the data's (chi-square, 4 dof)."""
    prior = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    config = config_of(1, 1, 5, alpha_infer=alpha, noise="redraw", sampling="sampled", steps=steps)
    ideal = Bayes(torch.arange(5).reshape(5, 1, 1), prior, 5, alpha)
    count = 20000
    drawn = run(ideal, config, count).flatten().bincount(minlength=5).double()
    chi_square = ((drawn - count * prior) ** 2 / (count * prior)).sum()
    assert chi_square < 18.5, drawn / count  # 0.1 % quantile
    wrong = torch.tensor([0.39, 0.28, 0.15, 0.11, 0.07])
    assert ((drawn - count * wrong) ** 2 / (count * wrong)).sum() > 18.5, "the test must tell 2 % apart"


def test_argmax_with_fixed_noise_is_not_the_true_distribution() -> None:
    """The paper's sampler favours likely tokens: it looks for a mode, it does not sample."""
    prior = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    ideal = Bayes(torch.arange(5).reshape(5, 1, 1), prior, 5, 1.0)
    drawn = run(ideal, config_of(1, 1, 5), 4000).flatten().bincount(minlength=5) / 4000
    assert drawn[0] > 0.5


@pytest.mark.parametrize("noise", ["fixed", "redraw"])
def test_ideal_denoiser_commits_to_one_chunk(noise: str) -> None:
    """Two chunks, equally likely, differ everywhere: refinement picks one, both ways; a single sampled step mixes."""
    chunks = torch.stack([torch.full((3, 2), 1), torch.full((3, 2), 4)])
    ideal = Bayes(chunks, torch.tensor([0.5, 0.5]), 6, 1.0)
    whole = run(ideal, config_of(3, 2, 6, noise=noise, steps=20), 500).flatten(1)
    is_a, is_b = (whole == 1).all(1), (whole == 4).all(1)
    assert (is_a | is_b).float().mean() > 0.98
    assert 0.4 < is_a.float().mean() < 0.6
    once = run(ideal, config_of(3, 2, 6, steps=1, sampling="sampled"), 500).flatten(1)
    assert ((once == 1).all(1) | (once == 4).all(1)).float().mean() < 0.1


@pytest.mark.parametrize(("tau", "alpha"), [(0.9, 1.0), (0.3, 1.0), (0.5, 0.1)])
def test_tweedie_identity(tau: float, alpha: float) -> None:
    """Equation 60: the posterior gives the gradient of the log density."""
    chunks = torch.tensor([[[0, 1]], [[2, 2]], [[1, 0]]])
    ideal = Bayes(chunks, torch.tensor([0.5, 0.2, 0.3]), 3, alpha)
    x = torch.randn(4, 1, 2, 3, dtype=torch.float64, generator=generator()).requires_grad_()
    (gradient,) = torch.autograd.grad(ideal.log_joint(x, tau).logsumexp(1).sum(), x)
    posterior = ideal(x, tau, torch.zeros(4, 1), None).logits.exp()
    torch.testing.assert_close(
        diffusion.score(x, posterior, tau, alpha).float(), gradient.float(), atol=1e-4, rtol=1e-4
    )


def test_cross_entropy_is_lowest_at_the_posterior() -> None:
    """Equations 55 to 58: the risk of the true posterior is its entropy, and any other prediction costs more."""
    prior = torch.tensor([0.6, 0.3, 0.1])
    ideal = Bayes(torch.arange(3).reshape(3, 1, 1), prior, 3, 1.0)
    tokens = torch.multinomial(prior, 4000, True, generator=generator()).reshape(-1, 1, 1)
    tau = 0.5
    x = diffusion.noised(tokens, torch.randn(4000, 1, 1, 3, generator=generator(1)), tau, 1.0)
    logits = ideal(x, tau, torch.zeros(4000, 1), None).logits
    everywhere = torch.ones_like(tokens, dtype=torch.bool)
    best = diffusion.cross_entropy(logits, tokens, everywhere)
    torch.testing.assert_close(best, diffusion.row_entropy(logits).mean(), atol=0.03, rtol=0)
    for change in (0.8, 1.3):
        assert diffusion.cross_entropy(logits * change, tokens, everywhere) > best


def test_noising_is_equation_4() -> None:
    tokens, eps = torch.tensor([[[2]], [[0]]]), torch.randn(2, 1, 1, 3)
    x = diffusion.noised(tokens, eps, torch.tensor([0.25, 0.0]), 0.1)
    torch.testing.assert_close(x[0, 0, 0], 0.25 * eps[0, 0, 0] + 0.75 * 0.1 * torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(x[1, 0, 0], torch.tensor([0.1, 0.0, 0.0]))


def test_training_times_lean_towards_noise() -> None:
    tau = diffusion.draw_tau(40000, generator())
    assert tau.min() >= 0.001 and tau.max() <= 1.0
    assert abs(tau.mean() - 0.6004) < 0.01  # the mean of Beta(1.5, 1) is 0.6
    assert abs((tau > 0.5).float().mean() - 0.647) < 0.01


def test_schedule_is_appendix_a1() -> None:
    assert diffusion.tau_schedule(4) == [1.0, 0.75, 0.5, 0.25]


def recorded(config: E0Config, **changes: object) -> tuple[list[Tensor], NoiseDraw, SamplerSettings]:
    """Inputs of every step when the network always answers token 1 of 3."""
    chosen = SamplerSettings.of(config, **changes)
    noise = diffusion.draw_noise(config, chosen, 1, generator())
    seen: list[Tensor] = []

    def denoise(x: Tensor, tau: float, clean: Tensor, flow: Tensor | None) -> Denoised:
        seen.append(x)
        return Denoised(torch.tensor([0.0, 5.0, 0.0]).expand(1, 2, 1, 3))

    plan, clean = torch.tensor([[[2], [0]]]), torch.tensor([[True, False]])
    out = diffusion.sample(denoise, noise, chosen, plan, clean)
    assert out.tokens.flatten().tolist() == [2, 1], "a committed row comes out unchanged"
    assert out.entropy[0, 0] == 0.0 < out.entropy[0, 1]
    return seen, noise, chosen


def test_steps_follow_equation_12_and_committed_rows_stay_clean() -> None:
    for policy in ("fixed", "redraw"):
        seen, noise, _ = recorded(config_of(2, 1, 3, alpha_infer=0.5), steps=4, noise=policy)
        for step, (x, tau) in enumerate(zip(seen, (1.0, 0.75, 0.5, 0.25), strict=True)):
            eps = noise.eps[step if policy == "redraw" else 0][0, 1, 0]
            want = tau * eps + (1 - tau) * 0.5 * torch.tensor([0.0, 1.0, 0.0])
            torch.testing.assert_close(x[0, 1, 0], want)
            torch.testing.assert_close(x[0, 0, 0], torch.tensor([0.0, 0.0, 1.0]))


def test_padding_is_fed_back_as_training_shows_it() -> None:
    """Behind the real columns stands the token of 0 from the second step on, whatever the network says there."""
    chosen = SamplerSettings(steps=4, alpha=0.5)
    noise = diffusion.draw_noise(config_of(1, 3, 8, hybrid_continuous=True), chosen, 2, generator())
    seen: list[tuple[Tensor, Tensor]] = []

    def denoise(x: Tensor, tau: float, clean: Tensor, flow: Tensor | None) -> Denoised:
        assert flow is not None
        seen.append((x, flow))
        return Denoised(torch.randn(2, 1, 3, 8, generator=generator()), torch.full((2, 1, 3), 7.0))

    plan, clean = torch.zeros(2, 1, 3, dtype=torch.long), torch.zeros(2, 1, dtype=torch.bool)
    out = diffusion.sample(denoise, noise, chosen, plan, clean, columns=1)
    zero, tokenizer = np.zeros((2, 1, 2)), ActionTokenizer(8)
    token = torch.from_numpy(tokenizer.encode(zero).tokens)
    middle = torch.from_numpy(tokenizer.decode(token.numpy())).float()
    assert torch.equal(out.tokens[..., 1:], token) and noise.flow is not None
    for (x, flow), tau in zip(seen, (1.0, 0.75, 0.5, 0.25), strict=True):
        torch.testing.assert_close(x[..., 1:, :], diffusion.noised(token, noise.eps[0][..., 1:, :], tau, 0.5))
        torch.testing.assert_close(flow[..., 1:], tau * noise.flow[..., 1:] + (1.0 - tau) * middle)
    torch.testing.assert_close(out.flow[..., 0], noise.flow[..., 0] - 7.0)
    real = torch.randn(2, 1, 3, 8, generator=generator())[..., :1, :]
    torch.testing.assert_close(out.entropy, diffusion.row_entropy(real))


def test_released_rule_does_not_anneal() -> None:
    seen, noise, _ = recorded(config_of(2, 1, 3), steps=2, noise_schedule="none", alpha=0.1)
    torch.testing.assert_close(seen[1][0, 1, 0], noise.eps[0][0, 1, 0] + 0.1 * torch.tensor([0.0, 1.0, 0.0]))


def test_the_expectation_is_that_of_all_bins_and_best_by_squared_error() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 32) * 2.0
    middles = (torch.arange(32) + 0.5) / 16 - 1
    drawn = middles[torch.distributions.Categorical(logits=logits).sample((20_000,))]
    got = diffusion.expectation(logits)
    torch.testing.assert_close(got, drawn.mean(0), atol=0.03, rtol=0)
    best = middles[logits.argmax(-1)]
    assert (drawn - got).square().mean() < (drawn - best).square().mean()


def test_the_mean_is_finer_than_a_bin_and_stays_with_its_mode() -> None:
    """Two bins share a mode at 0.4 and 0.2, another mode far away has the rest: the mean lies in the first mode."""
    p = torch.full((64,), 1e-9)
    p[10], p[11], p[50] = 0.4, 0.2, 0.39
    mean = diffusion.mean_around(p.log().expand(1, 1, 1, 64), torch.tensor([[[10]]]))
    assert mean.item() == pytest.approx((10 + 1 / 3 + 0.5) / 32 - 1, abs=1e-4)


def test_closest_sample_to_the_plan_wins() -> None:
    tokens = torch.tensor([[[0], [9]], [[5], [5]], [[4], [0]], [[7], [7]]])
    drawn = diffusion.Sample(tokens, torch.arange(8.0).reshape(4, 2))
    plan, known = torch.tensor([[[5], [0]], [[7], [7]]]), torch.tensor([[[True], [False]], [[True], [True]]])
    kept = diffusion.closest(drawn, 2, plan, known)
    assert kept.tokens.flatten(1).tolist() == [[5, 5], [7, 7]]
    assert kept.entropy.tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert diffusion.closest(drawn, 2, plan, torch.zeros_like(known)).tokens[0].flatten().tolist() == [0, 9]


@given(st.integers(0, 7), st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_committed_rows_are_drawn_within_bounds(most: int, seed: int) -> None:
    rows = diffusion.draw_committed(200, most, generator(seed))
    assert rows.dtype == torch.long and rows.min() >= 0 and rows.max() <= most
    if most:
        assert 0.3 < (rows > 0).float().mean() < 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0; allowed is 1 to 1000"),
        ({"noise": "fixd"}, "'fixd'; allowed are fixed, redraw"),
        ({"samples": 1.5}, "samples is 1.5"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"step": 3}, "unknown sampler setting 'step'"),
    ],
)
def test_wrong_settings_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        SamplerSettings.of(preset("nano"), **changes)
