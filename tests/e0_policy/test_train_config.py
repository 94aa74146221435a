from __future__ import annotations

import json
from pathlib import Path

import pytest

from e0_policy.resources import config_dir
from e0_policy.train_config import TrainConfig, TrainConfigError, from_mapping, load_config
from e0_policy.train_control import change

INTRINSICS = "fy: 60, cx: 31.5, cy: 23.5, width: 64, height: 48"
SHIPPED = sorted((config_dir() / "train").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=[p.stem for p in SHIPPED])
def test_shipped_files_load_and_round_trip(path):
    config = load_config(path)
    assert from_mapping(json.loads(json.dumps(config.to_dict())), "again") == config


def test_every_size_has_a_file():
    assert {p.stem for p in SHIPPED} >= {"nano", "small", "full", "synthetic"}


def test_the_full_file_has_the_papers_recipe():
    config = load_config(config_dir() / "train" / "full.yaml")
    assert (config.learning_rate, config.final_learning_rate, config.warmup_steps) == (5e-5, 5e-6, 1000)
    assert (config.steps, config.batch_size, config.clip_norm, config.ema) == (30000, 32, 1.0, 0.999)
    assert config.model.width == 2048 and config.precision == "bf16"


def test_settings_change_by_dotted_name(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("model: {preset: nano, depth: 2}\nsteps: 200\n")
    config = load_config(path, {"model.bins": 128, "steps": 300, "augmentation.crop": 1.0})
    assert (config.model.bins, config.model.depth, config.steps, config.augmentation.crop) == (128, 2, 300, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", r"a\.yaml: unknown setting 'stepz'; did you mean 'steps'\?"),
        ("model: {preset: nano, dept: 3}", r"a\.yaml: .*'dept'.*did you mean 'depth'"),
        ("model: {preset: nanno}", "did you mean 'nano'"),
        ("augmentation: {crp: 1.0}", r"a\.yaml: augmentation: unknown setting 'crp'; did you mean 'crop'"),
        ("augmentation: {crop: 3.0}", r"crop is 3\.0; allowed is 0\.5 to 1\.0"),
        ("cameras: {base: {fx: 1.0}}", r"cameras\.base lacks fy, cx, cy, width, height"),
        ("cameras: [base]", r"a\.yaml: cameras is \['base'\]; needed are intrinsics by view"),
        (f"cameras: {{base: {{{INTRINSICS}, fx: 0}}}}", r"a\.yaml: cameras\.base: fx is 0; allowed is 1 to 100000 px"),
        (f"cameras: {{base: {{{INTRINSICS}, fx: .nan}}}}", r"cameras\.base: fx is nan; allowed is 1 to"),
        (f"cameras: {{base: {{{INTRINSICS}, fx: wide}}}}", r"cameras\.base: fx is 'wide'; allowed is 1 to"),
        ("steps: many", "steps is 'many'; allowed is of type int"),
        ("precision: fp16", "precision is 'fp16'; allowed is one of fp32, bf16"),
        ("batch_size: 0", "batch_size is 0; allowed is 1 to"),
        ("{batch_size: 10, micro_batch: 3}", r"micro_batch is 3; allowed is a divisor of batch_size \(10\)"),
        ("model: {insulate: true}", r"action_writing is 'none'; allowed is naive or fast with model\.insulate"),
        ("[1, 2]", "a mapping of settings is needed, got list"),
        ("a: [", "not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path, text, message):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(TrainConfigError, match=message):
        load_config(path)


def test_numbers_may_have_an_exponent_and_no_point(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(
        f"{{learning_rate: 2e-3, final_learning_rate: 1.E-4, cameras: {{base: {{{INTRINSICS}, fx: 1e+2}}}}}}"
    )
    config = load_config(path, dict([change("clip_norm=+5E1"), change("model.alpha_infer=1e-1"), change("data=e1")]))
    assert (config.learning_rate, config.final_learning_rate, config.cameras["base"].fx) == (2e-3, 1e-4, 100.0)
    assert (config.clip_norm, config.model.alpha_infer, config.data) == (50.0, 0.1, "e1")


def test_a_missing_file_is_named():
    with pytest.raises(TrainConfigError, match=r"none\.yaml: cannot be read \(No such file"):
        load_config(Path("none.yaml"))


def test_the_defaults_are_valid():
    assert TrainConfig().model.prediction_horizon == 8
