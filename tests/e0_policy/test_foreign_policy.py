from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="msgpack is not installed (extra [remote])")
pytest.importorskip("websockets", reason="websockets is not installed (extra [remote])")

from e0_policy.embodiment import load_embodiment
from e0_policy.foreign import expanded, is_foreign, read_foreign
from e0_policy.foreign_features import FeatureError
from e0_policy.foreign_policy import interpreter, load_foreign
from e0_policy.policy_connection import PolicyServerError
from e0_policy.types import Observation
from e0_ros.config import ConfigError
from e0_ros.policies import load_checkpoint, read_card
from tests.e0_policy.policy_servers import serving

ARM = load_embodiment("panda")
VIEWS = {name: np.full((64, 64, 3), 90, np.uint8) for name in ("base", "wrist")}
SEEN = Observation(1_000_000_000, VIEWS, ARM.home, 1.0, "pick it", "panda", ARM.joint_names)
CONFIG = {
    "type": "act",
    "input_features": {
        "observation.images.base": {"type": "VISUAL", "shape": [3, 48, 64]},
        "observation.images.wrist": {"type": "VISUAL", "shape": [3, 64, 64]},
        "observation.state": {"type": "STATE", "shape": [8]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [8]}},
    "n_obs_steps": 1,
    "chunk_size": 16,
    "n_action_steps": 10,
}


def folder(where: Path, step: Mapping[str, Any] | None = None, **config: Any) -> Path:
    where.mkdir()
    (where / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (where / "model.safetensors").write_bytes(b"weights")
    for name in ("policy_preprocessor.json", "policy_postprocessor.json"):
        (where / name).write_text(json.dumps({"name": "p", "steps": [step or {"registry_name": "to_batch_processor"}]}))
    return where


def test_an_openpi_server_plans_with_the_arm_and_settings_given() -> None:
    asked: list[Mapping[str, Any]] = []

    def infer(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"actions": np.tile(np.append(request["observation/state"][:7], 0.5), (12, 1))}

    with serving(infer) as address:
        settings = {"name": "pi05_pick", "execution_horizon": 6, "period_ms": 100.0, "image_px": 32}
        policy = load_checkpoint(address, "cpu", settings, "panda")
        assert (policy.embodiment, policy.checkpoint, policy.execution_horizon) == ("panda", "pi05_pick", 6)
        output = policy.infer(SEEN, None)
        assert output is not None and output.rows.shape == (12, 8) and output.period_ns == 100_000_000
        assert np.allclose(output.rows[0, :7], ARM.home, atol=1e-6)
        assert asked[0]["observation/wrist_image"].shape == (32, 32, 3) and asked[0]["prompt"] == "pick it"
        card = read_card(address, settings)
        assert (card.name.split("/")[0], card.views, card.image_px) == (
            "openpi server pi05_pick",
            ("base", "wrist"),
            32,
        )
        assert read_card(address, {**settings, "period_ms": 50}).digest != card.digest
        policy.close()  # type: ignore[attr-defined]


def test_a_policy_that_looks_back_is_given_what_was_seen_a_period_ago() -> None:
    asked: list[Mapping[str, Any]] = []

    def infer(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request)
        return {"actions": np.tile(request["observation/state"][-1], (8, 1))}

    with serving(infer) as address:
        policy = load_foreign(address, "panda", settings={"observations": 3})
        assert policy.observe is not None
        for i in range(5):
            seen = replace(SEEN, stamp_ns=SEEN.stamp_ns + i * 25_000_000, gripper_opening=i / 10)
            policy.observe(seen)
        policy.infer(seen, None)
        assert np.allclose(asked[0]["observation/state"][:, 7], [0.0, 0.2, 0.4])
        policy.reset()
        policy.infer(seen, None)
        assert np.allclose(asked[1]["observation/state"][:, 7], 0.4)
        policy.close()


def test_a_folder_of_lerobots_says_what_it_needs(tmp_path: Path) -> None:
    here = folder(tmp_path / "act")
    assert is_foreign(str(here)) and not is_foreign(str(tmp_path))
    card = read_card(here)
    assert (card.kind, card.views, card.image_px, card.execution_horizon) == ("LeRobot act", ("base", "wrist"), 64, 10)
    found = read_foreign(str(here))
    assert found.features.images["observation.images.base"] == (48, 64) and found.features.instruction == "task"
    assert read_foreign(str(here), {"views": {"base": "observation.images.base"}}).digests() != found.digests()
    (here / "policy_preprocessor_step_3_normalizer_processor.safetensors").write_bytes(b"other statistics")
    assert read_card(here).identifier == card.identifier and read_card(here).digest != card.digest


def test_settings_come_from_a_file_and_over_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("period_ms: 100\nexecution_horizon: 4\n")
    assert expanded({"mapping": str(file), "period_ms": 50}) == {"period_ms": 50, "execution_horizon": 4}
    for shipped in Path("config/policies").glob("*.yaml"):
        assert read_foreign("ws://127.0.0.1:1", {"mapping": str(shipped)}).features.views
    with pytest.raises(FeatureError, match=r"mapping .*none.yaml"):
        expanded({"mapping": str(tmp_path / "none.yaml")})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"step": {"class": "os.system"}}, "names os.system; code of others is not loaded"),
        ({"input_features": {"observation.images.base": {"type": "VISUAL", "shape": [3]}}}, "is not LeRobot's"),
        ({"remove": "model.safetensors"}, "has no model.safetensors"),
        ({"remove": "policy_preprocessor.json"}, "before 0.4 wrote none"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    removed = change.pop("remove", "")
    here = folder(tmp_path / "act", **change)
    if removed:
        (here / removed).unlink()
    with pytest.raises(ConfigError, match=text):
        read_card(here)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"perod_ms": 50}, "unknown setting 'perod_ms'; did you mean 'period_ms'"),
        ({"timeout_s": "long"}, "timeout_s is 'long'; it must be of type float"),
        ({"python": "/nowhere/python"}, "python is '/nowhere/python', which is no file"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load_checkpoint(str(folder(tmp_path / "act")), "cpu", settings, "panda")


def test_what_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="an address is ws://HOST:PORT"):
        read_card("ws://:99999")
    with pytest.raises(ConfigError, match="cannot be reached"):
        load_checkpoint("ws://127.0.0.1:9", "cpu", {"start_s": 0.0}, "panda")
    monkeypatch.setattr("e0_policy.foreign_policy.VENV", tmp_path / ".venv-lerobot" / "bin" / "python")
    monkeypatch.setattr("e0_policy.foreign_policy.find_spec", lambda name: None)
    with pytest.raises(FeatureError, match=r"make lerobot-venv makes \.venv-lerobot"):
        interpreter()


def test_an_interpreter_without_lerobot_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PolicyServerError, match=r"ended with status 1; it said: .* has no lerobot: make lerobot-venv"):
        load_foreign(str(folder(tmp_path / "act")), "panda", "cpu", {"python": sys.executable})
    assert not [
        path
        for path in Path(os.environ.get("TMPDIR", "/tmp")).glob("e0-lerobot-*/log")
        if "lerobot" in path.read_text()
    ]
