from __future__ import annotations

import numpy as np
import pytest
import torch

from e0_policy.batch import Batch
from e0_policy.fast_tokens import FastTokenizer, NaiveTokenizer
from e0_policy.insulation import ActionWriting, InsulationError, autoregressive_loss, token_losses
from e0_policy.model import E0Model
from e0_policy.model_config import preset
from e0_policy.text_tokenizer import WordTokenizer
from e0_policy.train_batch import Collator
from e0_policy.train_config import TrainConfig
from e0_policy.train_setup import load_data

torch.set_num_threads(1)
TINY = {
    "image_size": 32, "vision_width": 16, "vision_mlp": 16, "width": 16, "mlp": 16, "expert_width": 16,
    "expert_mlp": 16, "depth": 2, "heads": 2, "head_dim": 8, "prediction_horizon": 3, "action_dim": 2, "bins": 16,
    "vocab_size": 320, "max_text_tokens": 6, "proprio_dim": 2,
}  # fmt: skip
WRITING = ActionWriting(WordTokenizer(size=320, specials=40), NaiveTokenizer(16))


def _model(insulate: bool) -> E0Model:
    torch.manual_seed(0)
    model = E0Model(preset("nano", **TINY, insulate=insulate))
    for name, parameter in model.named_parameters():
        if "norm" in name or "offset_proj" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def _batch(batch: int = 2) -> Batch:
    g = torch.Generator().manual_seed(1)
    return Batch(
        images=torch.rand((batch, 2, 3, 32, 32), generator=g) * 2 - 1,
        view_mask=torch.ones(batch, 2, dtype=torch.bool),
        view_offset=torch.rand((batch, 2, 3), generator=g),
        text_tokens=torch.randint(2, 258, (batch, 6), generator=g),
        text_mask=torch.ones(batch, 6, dtype=torch.bool),
        proprio=torch.rand((batch, 2), generator=g),
        action_tokens=torch.randint(0, 16, (batch, 3, 2), generator=g),
        action_mask=torch.ones(batch, 3, 2, dtype=torch.bool),
        committed=torch.zeros(batch, dtype=torch.long),
    )


def _written(seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    return WRITING.write(list(rng.uniform(-1, 1, (batch, 3, 2))))


def _gradients(model: E0Model, loss: torch.Tensor) -> dict[str, float]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in model.named_parameters()}


def _expert(name: str) -> bool:
    return name.startswith(("backbone.expert", "action_", "time"))


def test_the_diffusion_loss_trains_the_expert_alone_when_insulated():
    model = _model(insulate=True)
    gradients = _gradients(model, model.loss(_batch(), torch.Generator().manual_seed(0)).total)
    assert all(value == 0.0 for name, value in gradients.items() if not _expert(name))
    assert any(value > 0.0 for name, value in gradients.items() if _expert(name))


def test_without_insulation_it_trains_the_backbone_too():
    model = _model(insulate=False)
    gradients = _gradients(model, model.loss(_batch(), torch.Generator().manual_seed(0)).total)
    for part in ("vision", "projector", "offset_proj", "proprio_proj", "backbone.language", "backbone.embed_tokens"):
        assert any(value > 0.0 for name, value in gradients.items() if name.startswith(part)), part


def test_the_token_loss_trains_the_whole_backbone_and_nothing_of_the_expert():
    model = _model(insulate=True)
    gradients = _gradients(model, autoregressive_loss(model, model.prefix(_batch()), *_written()))
    assert all(value == 0.0 for name, value in gradients.items() if _expert(name))
    silent = [name for name, value in gradients.items() if value == 0.0 and not _expert(name)]
    assert silent == []


def test_both_losses_together_give_each_part_its_own_gradient():
    model, batch = _model(insulate=True), _batch()
    own = _gradients(model, model.loss(batch, torch.Generator().manual_seed(0)).total)
    token = _gradients(model, autoregressive_loss(model, model.prefix(batch), *_written()))
    cache = model.prefix(batch)
    total = model.loss(batch, torch.Generator().manual_seed(0), cache).total
    both = _gradients(model, total + autoregressive_loss(model, cache, *_written()))
    for name, value in both.items():
        assert value == pytest.approx(own[name] if _expert(name) else token[name], rel=1e-4, abs=1e-8), name


def test_neither_writing_of_the_actions_sees_the_other():
    model, batch = _model(insulate=True), _batch()
    with torch.no_grad():
        cache = model.prefix(batch)
        before = autoregressive_loss(model, cache, *_written())
        diffusion = model.loss(batch, torch.Generator().manual_seed(0), cache).total
        other = batch.action_tokens.flip(0)
        assert not torch.equal(other, batch.action_tokens)
        batch.action_tokens = other
        assert torch.equal(autoregressive_loss(model, model.prefix(batch), *_written()), before)
        batch.action_tokens = other.flip(0)
        autoregressive_loss(model, cache, *_written(seed=9))
        assert torch.equal(model.loss(batch, torch.Generator().manual_seed(0), cache).total, diffusion)


def test_a_token_is_predicted_from_the_prefix_and_those_before_it():
    model, batch = _model(insulate=False), _batch()
    ids, mask = _written()
    changed = ids.clone()
    changed[:, 4] = torch.where(ids[:, 4] == 300, 301, 300)
    with torch.no_grad():
        cache = model.prefix(batch)
        before, after = token_losses(model, cache, ids, mask), token_losses(model, cache, changed, mask)
        torch.testing.assert_close(after[:, :3], before[:, :3])
        assert ((after[:, 3:] - before[:, 3:]).abs() > 1e-6).all()
        batch.images = batch.images.flip(0)
        assert ((token_losses(model, model.prefix(batch), ids, mask) - before).abs() > 1e-6).all()


def test_padding_counts_for_nothing():
    model, batch = _model(insulate=False), _batch()
    ids, mask = _written()
    wider = torch.nn.functional.pad(ids, (0, 3)), torch.nn.functional.pad(mask, (0, 3))
    with torch.no_grad():
        cache = model.prefix(batch)
        torch.testing.assert_close(
            autoregressive_loss(model, cache, *wider), autoregressive_loss(model, cache, ids, mask)
        )


@pytest.mark.parametrize("action_writing", ["naive", "fast"])
def test_held_rows_behind_an_episodes_end_are_not_written(action_writing: str):
    """As in the diffusion loss, whose mask is the batch's."""
    config = TrainConfig(
        model=preset("nano", image_size=32, vocab_size=512),
        synthetic_episodes=4,
        constant_dimensions="hold",
        action_writing=action_writing,
        writing_vocabulary=200,
    )
    data = load_data(config, None)
    dataset, collate = data.dataset, Collator(data.transform, data.writing)
    ends = [i for i in range(len(dataset)) if len(dataset.numbers(i)[1]) == 3][:2]
    inputs, targets = dataset.batch(ends)
    targets.tokens[:, 3:] = targets.tokens[:, :1]
    (batch, written), (_, other) = collate(dataset.batch(ends)), collate((inputs, targets))
    assert batch.action_mask[:, :3].all() and not batch.action_mask[:, 3:].any()
    for one, two in zip(written, other, strict=True):
        assert torch.equal(one, two), "what stands behind the end has no part in it"
    if action_writing == "naive":
        assert written[1].sum(1).tolist() == [2 + 3 * 8] * 2


def test_writing_uses_special_tokens_between_marks():
    text = WordTokenizer(size=320, specials=40)
    ids, mask = WRITING.write([np.full((3, 2), -1.0)])
    assert ids.tolist() == [[text.special(0), *[text.special(2)] * 6, text.special(1)]] and mask.all()
    fast = FastTokenizer(1, 2, 1.0, 0, 2, ((0, 0),))
    ids, mask = ActionWriting(text, fast).write([np.array([[0.0, 0.0]]), np.array([[0.0, 1.0]])])
    assert mask.sum(1).tolist() == [3, 4]
    with pytest.raises(InsulationError, match=r"16 action tokens and two marks.*vocabulary with 17"):
        ActionWriting(WordTokenizer(size=320, specials=17), NaiveTokenizer(16))
