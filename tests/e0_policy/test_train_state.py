from __future__ import annotations

import json

import pytest
import torch

from e0_policy.train_state import (
    TrainStateError,
    fill_optimizer,
    gathered,
    load_part,
    newest,
    optimizer_state,
    save,
    states,
)


def _parts(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {part: {"w": torch.full((3,), value)} for part in ("model", "ema", "optimizer")}


def test_the_newest_whole_state_is_found_and_old_ones_go(tmp_path):
    for step in (1, 2, 10):
        save(tmp_path, step, _parts(step), {"config": {"a": 1}}, keep=2)
    assert [p.name for p in states(tmp_path)] == ["step_00000002", "step_00000010"]
    (tmp_path / "state" / ".partial_00000011").mkdir()
    saved = newest(tmp_path)
    assert saved.step == 10 and saved.meta["config"] == {"a": 1}
    assert torch.equal(load_part(saved, "ema")["w"], torch.full((3,), 10.0))
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))


def test_damage_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(TrainStateError, match="no state to resume"):
        newest(tmp_path)
    folder = save(tmp_path, 3, _parts(1.0), {}, keep=1)
    file = folder / "ema.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(TrainStateError, match=r"ema\.safetensors has sha256 \w+; \w+ was saved"):
        newest(tmp_path)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(TrainStateError, match="has sha256"):
        newest(tmp_path)
    file.unlink()
    with pytest.raises(TrainStateError, match="is damaged"):
        newest(tmp_path)
    file.write_bytes(content)
    (folder / "state.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(TrainStateError, match=r"is damaged.*sha256"):
        newest(tmp_path)


def test_an_optimizer_comes_back_whole():
    def make():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
        model.unused = torch.nn.Linear(2, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model, optimizer):
        model[1](model[0](torch.ones(2, 3))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = make()
    step(model, optimizer)
    again, fresh = make()
    step(again, torch.optim.SGD(again.parameters(), lr=0.0))
    again.load_state_dict(model.state_dict())
    fill_optimizer(again, fresh, gathered(optimizer_state(model, optimizer)))
    step(model, optimizer)
    step(again, fresh)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
