from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lerobot_folder import write_folder
from safetensors import SafetensorError
from safetensors.torch import save_file

from e0_policy import train as training
from e0_policy import train_batch, train_setup
from e0_policy.batch import Batch
from e0_policy.checkpoint import load_model, read_checkpoint
from e0_policy.data_order import split_takes
from e0_policy.dataset import DatasetError, write_packed
from e0_policy.inference import load_policy
from e0_policy.learner import learning_rate
from e0_policy.lerobot_source import LeRobotSource
from e0_policy.synthetic import SyntheticSource
from e0_policy.text_tokenizer import TextTokenError
from e0_policy.train import main, train
from e0_policy.train_batch import Collator, perturb, step_generator
from e0_policy.train_config import TrainConfig, TrainConfigError, from_mapping
from e0_policy.train_control import Interrupted, TrainingError, run_command
from e0_policy.train_log import Log
from e0_policy.train_setup import open_source
from e0_policy.train_state import TrainStateError, load_part, newest, states
from e0_policy.transforms import PolicyTransform
from e0_policy.types import Observation
from e0_ros.policies import first_views
from tests.e0_policy.drawn_scenes import draw_scenes

TINY = {
    "preset": "nano", "image_size": 32, "vision_width": 32, "vision_mlp": 32, "width": 32, "mlp": 64,
    "expert_width": 32, "expert_mlp": 64, "depth": 2, "heads": 2, "head_dim": 16, "prediction_horizon": 4, "bins": 32,
    "vocab_size": 384, "max_text_tokens": 12, "committed_max": 2, "steps": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_config(output: Path, **changes) -> TrainConfig:
    values = {
        "model": {**TINY, **changes.pop("model", {})},
        "output": str(output),
        "synthetic_episodes": 6,
        "constant_dimensions": "hold",
        "view_dropout": 0.2,
        "batch_size": 8,
        "steps": 6,
        "warmup_steps": 2,
        "log_every": 1,
        "save_every": 3,
        "validation_samples": 4,
        "device": "cpu",
    }
    return from_mapping({**values, **changes}, "test")


def losses(output: Path, kind: str = "train") -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == kind]


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("straight")
    train(make_config(output))
    return output


def test_a_run_leaves_its_figures_and_state(straight):
    assert [step for step, _ in losses(straight)] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in losses(straight, "validation")] == [6]
    assert newest(straight).step == 6
    assert list((straight / "tensorboard").glob("events.*"))
    last = json.loads((straight / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["joint_rad"] < 1 and 0 < last["tcp_m"] < 1 and 0 <= last["gripper"] <= 1
    shown = first_views(straight / "checkpoint")
    assert shown and all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in shown.values())


def test_a_killed_run_goes_on_with_the_same_bits(straight, tmp_path):
    path = tmp_path / "config.yaml"
    output = tmp_path / "run"
    path.write_text(yaml.safe_dump(make_config(output).to_dict()))
    script = (
        "import os, signal, sys, torch\n"
        "from e0_policy import train\n"
        "torch.set_num_threads(1)\n"
        "real = train.Log.step\n"
        "def step(self, number, *rest):\n"
        "    if number == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(self, number, *rest)\n"
        "train.Log.step = step\n"
        "train.main(['--config', sys.argv[1]])\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, timeout=240)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert newest(output).step == 3 and losses(output) == losses(straight)[:4]
    assert main(["--config", str(path), "--resume"]) == 0
    assert losses(output) == losses(straight)
    assert losses(output, "validation") == losses(straight, "validation")
    for part in ("model", "ema", "optimizer"):
        one, other = load_part(newest(output), part), load_part(newest(straight), part)
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_a_torn_last_line_of_the_figures_is_no_obstacle(straight, tmp_path):
    output = tmp_path / "run"
    shutil.copytree(straight, output)
    whole = (output / "metrics.jsonl").read_text().splitlines(keepends=True)
    (output / "metrics.jsonl").write_bytes("".join(whole[:5]).encode() + b'{"step": 6, "ki\xff')
    Log(output, make_config(output), 5, True).close()
    assert (output / "metrics.jsonl").read_text() == "".join(whole[:5])
    (output / "metrics.jsonl").write_text("".join([whole[0], whole[1][:9] + "\n", *whole[2:]]))
    with pytest.raises(TrainStateError, match=r"metrics\.jsonl: line 2 is damaged"):
        Log(output, make_config(output), 5, True)


def test_samples_are_read_in_other_processes_in_the_same_order(straight, tmp_path):
    train(make_config(tmp_path, workers=2, steps=6))
    assert losses(tmp_path) == losses(straight)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data") / "both", (24, 20, 22, 18, 26), side=48).path


def test_a_lerobot_folder_is_trained_on_from_the_cache_and_from_the_videos_alike(folder, tmp_path, capsys):
    changes = {"data": str(folder), "batch_size": 6, "drop_idle_rad": 0.001}
    train(make_config(tmp_path / "once", **changes))
    assert [p.name[:5] for p in folder.with_name("both.cache").iterdir()] == ["32px-"]
    train(make_config(tmp_path / "always", decode="always", workers=1, **changes))
    assert losses(tmp_path / "once") == losses(tmp_path / "always") and len(losses(tmp_path / "once")) == 6
    assert losses(tmp_path / "once", "validation") == losses(tmp_path / "always", "validation")
    made = read_checkpoint(tmp_path / "once" / "checkpoint")
    assert made.embodiment == "panda" and made.period_ns == 50_000_000 and made.training["data"] == str(folder)
    assert load_policy(str(tmp_path / "once" / "checkpoint"), device="cpu", dtype="float32").execution_horizon == 4
    assert "frames are left out as idle; at most" in capsys.readouterr().out


def test_folders_are_mixed_and_filtered_by_instruction(folder, tmp_path):
    write_packed(LeRobotSource(folder), tmp_path / "packed")
    data = [str(folder), {"folder": str(tmp_path / "packed")}]
    config = make_config(tmp_path / "run", data=data, steps=1, warmup_steps=0)
    source = open_source(config)
    assert len(source.episodes) == 10 and len({e.instruction for e in source.episodes}) == 2
    train(config)
    assert read_checkpoint(tmp_path / "run" / "checkpoint").training["data"] == config.to_dict()["data"]
    only = open_source(make_config(tmp_path / "run", data=data, instructions=["push*"]))
    assert [e.instruction for e in only.episodes] == ["push the cube"] * 4


def test_the_best_weights_by_validation_loss_are_kept_also_over_a_resumption(tmp_path, monkeypatch):
    real, falling = training.open_loop, iter([3.0, 1.0, 2.0, 1.5])

    def scripted(*arguments, **settings):
        return replace(real(*arguments, **settings), loss=next(falling))

    def stop(self, number, *rest):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return logged(self, number, *rest)

    logged = training.Log.step
    monkeypatch.setattr(training, "open_loop", scripted)
    monkeypatch.setattr(training.Log, "step", stop)
    config = make_config(tmp_path, validate_every=2, save_every=100)
    with pytest.raises(Interrupted):
        train(config)
    best = read_checkpoint(tmp_path / "best")
    assert (best.training["step"], best.training["open_loop"]["loss"]) == (4, 1.0)
    last = read_checkpoint(tmp_path / "checkpoint").training
    assert (last["step"], last["open_loop"]["step"], last["open_loop"]["loss"]) == (5, 4, 1.0)
    gone_on = training.prepare(config, training.Workers(0, 1, torch.device("cpu")), newest(tmp_path))
    assert gone_on.open_loop == last["open_loop"], "until the next validation"
    monkeypatch.setattr(training.Log, "step", logged)
    result = train(config, resume=True)
    assert result.best_validation_loss == 1.0 and result.validation.loss == 2.0
    assert read_checkpoint(tmp_path / "best").identifier == best.identifier
    assert read_checkpoint(tmp_path / "checkpoint").identifier != best.identifier


def test_sigterm_to_readers_too_saves_the_state_and_stops(straight, tmp_path, monkeypatch):
    real, readers = training.Log.step, []

    def step(self, number, *rest):
        if number == 4:
            readers.extend(multiprocessing.active_children())
            pids = " ".join(str(pid) for pid in (*(reader.pid for reader in readers), os.getpid()))
            subprocess.run(["sh", "-c", f"kill -TERM {pids}"], check=True)  # not the parent: of it torch's readers know
            for reader in readers:
                reader.join(0.5)
        return real(self, number, *rest)

    monkeypatch.setattr(training.Log, "step", step)
    with pytest.raises(Interrupted, match="after step 4"):
        train(make_config(tmp_path, workers=2))
    monkeypatch.undo()
    assert newest(tmp_path).step == 4 and len(readers) == 2
    train(make_config(tmp_path), resume=True)
    assert losses(tmp_path) == losses(straight)


INSULATED = {"steps": 2, "micro_batch": 2, "action_writing": "naive", "writing_vocabulary": 32}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("alone")
    train(make_config(output, model={"insulate": True}, **INSULATED))
    return output


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(alone, tmp_path, parallel):
    path, shared = tmp_path / "config.yaml", tmp_path / "shared"
    config = make_config(shared, parallel=parallel, model={"insulate": True}, **INSULATED)
    path.write_text(yaml.safe_dump(config.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "e0_policy.train", "--config", str(path)]
    ran = subprocess.run(command, capture_output=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    assert len(losses(alone)) == 2
    for (step, one), (again, two) in zip(losses(alone), losses(shared), strict=True):
        assert step == again and two == pytest.approx(one, rel=2e-5)
    one, two = load_part(newest(alone), "ema"), load_part(newest(shared), "ema")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4)
    assert losses(shared, "validation")[0][1] == pytest.approx(losses(alone, "validation")[0][1], rel=1e-4)


@pytest.mark.parametrize("form", ["text", "special"])
def test_proprioception_in_other_forms(tmp_path, form):
    result = train(make_config(tmp_path, steps=2, model={"proprio_form": form, "max_text_tokens": 96}))
    assert math.isfinite(result.loss)
    transform = read_checkpoint(tmp_path / "checkpoint").transform
    assert transform["proprioception_in_text"] == (form == "text") and transform["proprioception_digits"] == 3
    read = PolicyTransform.from_json(transform)
    assert read.to_json() == transform
    assert PolicyTransform.from_json({k: v for k, v in transform.items() if k[-6:] != "digits"}).prompt.digits == 0


def test_loss_and_error_fall(tmp_path):
    changes = {"steps": 50, "learning_rate": 3e-3, "ema": 0.9, "synthetic_episodes": 4, "log_every": 5}
    train(make_config(tmp_path, save_every=50, augment=False, validate_every=5, **changes))
    curve, held_out = ([value for _, value in losses(tmp_path, kind)] for kind in ("train", "validation"))
    assert curve[-1] < 0.5 * curve[0] and held_out[-1] < 0.5 * held_out[0]


def test_insulated_training_with_fast_tokens_in_bf16(tmp_path):
    changes = {"model": {"insulate": True, "vocab_size": 512}, "action_writing": "fast", "writing_vocabulary": 200}
    train(make_config(tmp_path, steps=3, precision="bf16", activation_checkpointing=True, **changes))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    train_lines = [line for line in lines if line["kind"] == "train"]
    assert all(0 < line["writing"] < 10 for line in train_lines)
    assert train_lines[0]["loss"] == pytest.approx(
        train_lines[0]["cross_entropy"] + train_lines[0]["writing"], rel=1e-4
    )


def test_activation_checkpointing_changes_nothing(straight, tmp_path, monkeypatch):
    real, calls = training.E0Model.checkpoint_activations, []
    monkeypatch.setattr(training.E0Model, "checkpoint_activations", lambda self: (calls.append(self), real(self)))
    train(make_config(tmp_path, activation_checkpointing=True))
    assert len(calls) == 1
    for (_, one), (_, two) in zip(losses(straight), losses(tmp_path), strict=True):
        assert two == pytest.approx(one, rel=1e-5)


def test_micro_batches_have_the_gradient_of_their_batch(tmp_path, monkeypatch):
    """At an episode's end fewer tokens count: none where all that is left is committed."""
    monkeypatch.setattr(train_batch, "perturb", lambda batch, *_: batch)
    changes = {"batch_size": 4, "action_writing": "fast", "writing_vocabulary": 200}
    changes["model"] = {"head": "categorical", "steps": 1, "vocab_size": 512}  # which sees no noise
    found = []
    for micro in (0, 1, 2):
        config = make_config(tmp_path, micro_batch=micro, **changes)
        run = training.prepare(config, training.Workers(0, 1, torch.device("cpu")), None)
        end = len(run.data.dataset.where(0)[0])
        collate = Collator(run.data.transform, run.data.writing)
        batch, written = collate(run.data.dataset.batch([0, end - 1, 1, end - 3]))
        batch.committed[:] = torch.tensor([2, 1, 0, 0])
        assert batch.action_mask[..., 0].sum(1).tolist() == [4, 1, 4, 3]
        parts = training._gradient(run.module, (batch, written), config, 0, run.workers)
        found.append({**parts, **{n: p.grad for n, p in run.model.named_parameters() if p.grad is not None}})
    assert {"loss", "accuracy", "writing", "action_out.weight"} <= found[0].keys()
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(tmp_path, monkeypatch):
    real = training.TrainStep.forward

    def forward(self, *inputs):
        loss, parts = real(self, *inputs)
        return loss * math.nan, parts

    monkeypatch.setattr(training.TrainStep, "forward", forward)
    with pytest.raises(TrainingError, match=r"step 1: the gradient norm is nan and the loss nan; .*--resume"):
        train(make_config(tmp_path))
    assert not (tmp_path / "state").exists() and not (tmp_path / "checkpoint").exists()


def test_what_to_do_where_the_gradient_is_not_finite_can_be_done(straight, tmp_path, monkeypatch):
    real = training._gradient

    def gradient(module, samples, config, step, workers):
        parts = real(module, samples, config, step, workers)
        if step == 4 and config.learning_rate == 1e-3:
            next(module.parameters()).grad.fill_(math.nan)
        return parts

    monkeypatch.setattr(training, "_gradient", gradient)
    with pytest.raises(TrainingError, match=r"step 5: .* lower learning_rate .* or clip_norm and .* with --resume"):
        train(make_config(tmp_path))
    lower = {"learning_rate": 5e-4, "final_learning_rate": 5e-5, "clip_norm": 0.5}
    train(make_config(tmp_path, **lower), resume=True)
    assert losses(tmp_path)[:4] == losses(straight)[:4] and losses(tmp_path)[4:] != losses(straight)[4:]
    assert newest(tmp_path).step == 6 and lower.items() <= newest(tmp_path).meta["config"].items()


def test_a_held_out_prompt_that_is_too_long_is_refused_at_the_start(tmp_path, monkeypatch):
    class Unheard(SyntheticSource):
        def __init__(self, episodes, *rest):
            super().__init__(episodes, *rest)
            (held,) = split_takes([episode.take for episode in self.episodes], 0.1, 0)[1]
            self.episodes[held] = replace(self.episodes[held], instruction="fetch the quartz")

    monkeypatch.setattr(train_setup, "SyntheticSource", Unheard)
    with pytest.raises(TextTokenError, match=r"'fetch the quartz' makes a prompt of \d\d tokens; the model takes 12"):
        train(make_config(tmp_path))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_validation_that_fails_costs_no_state(straight, tmp_path, monkeypatch):
    def unreadable(*arguments, **settings):
        raise DatasetError("episode 5, frame 3 cannot be read")

    config = make_config(tmp_path, validate_every=3)
    with monkeypatch.context() as patch, pytest.raises(DatasetError, match="frame 3"):
        patch.setattr(training, "open_loop", unreadable)
        train(config)
    assert newest(tmp_path).step == 3
    train(config, resume=True)
    assert losses(tmp_path) == losses(straight)


def test_only_the_same_run_is_resumed(straight, tmp_path):
    with pytest.raises(TrainStateError, match="go on with --resume, or give another output"):
        train(make_config(straight))
    with pytest.raises(TrainStateError, match=r"batch_size is 4; the run to resume has 8"):
        train(make_config(straight, batch_size=4), resume=True)
    with pytest.raises(TrainStateError, match=r"validation_samples is 8; the run to resume has 4"):
        train(make_config(straight, validation_samples=8), resume=True)  # whose losses do not compare
    with pytest.raises(TrainStateError, match="is done: 6 of 6 steps"):
        train(make_config(straight), resume=True)
    with pytest.raises(TrainStateError, match="no state to resume"):
        train(make_config(tmp_path / "other"), resume=True)


def test_for_scripts_a_run_is_begun_gone_on_with_and_left_alone_when_done(tmp_path, monkeypatch, capsys):
    path, output = tmp_path / "config.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(make_config(output, steps=2, save_every=1).to_dict()))
    begin = ["--config", str(path), "--continue"]
    (output / "state" / ".partial_00000001").mkdir(parents=True)  # killed while it wrote its first state
    write, real = training.save, []

    def stop(*state):
        real.append(write(*state))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save", stop)
        main(begin)
    assert newest(output).step == 1 and read_checkpoint(output / "checkpoint").training["step"] == 1
    assert main(begin) == 0 and newest(output).step == 2 == read_checkpoint(output / "checkpoint").training["step"]
    before = sorted((f, f.stat().st_mtime_ns) for f in output.rglob("*"))
    assert main(begin) == 0 and "is done: 2 of 2 steps" in capsys.readouterr().err
    assert sorted((f, f.stat().st_mtime_ns) for f in output.rglob("*")) == before
    assert main([*begin, "--set", "batch_size=4"]) == 2 and "batch_size is 4" in capsys.readouterr().err
    assert main(["--config", str(path), "--resume"]) == 2


def test_a_state_is_there_only_when_the_checkpoint_of_its_step_is(tmp_path, monkeypatch):
    def stop(*state):
        raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "_write_checkpoint", stop)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(tmp_path, save_every=1))
    assert not states(tmp_path)


def test_figures_are_strict_json_and_a_folder_that_cannot_be_made_is_said_at_the_start(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(make_config(tmp_path).to_dict()))
    words = ["--config", str(tmp_path / "config.yaml"), "--json"]
    out = tmp_path / "new" / "figures.json"
    assert run_command("e0 train", "", "", lambda *_: {"loss": math.nan}, [*words, str(out)]) == 0
    assert json.loads(out.read_text(), parse_constant=pytest.fail) == {"loss": None}
    with pytest.raises(SystemExit, match="2"):
        run_command("e0 train", "", "", pytest.fail, [*words, str(out / "below.json")])
    assert "its folder cannot be made (File exists)" in capsys.readouterr().err


def test_main_tells_wrong_input_by_its_exit_status(tmp_path, capsys):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(make_config(tmp_path / "run", steps=2).to_dict()))
    assert main(["--config", str(path), "--set", "stepz=3"]) == 2
    assert "did you mean 'steps'" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", "constant_dimensions=error"]) == 2
    assert "panda_joint2 has zero range" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", "model.views=[base, side]"]) == 2
    assert "model.views has side; synthetic has base, wrist" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", f"initial_weights={tmp_path / 'none'}"]) == 2
    assert "none" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", "data=/nowhere"]) == 2
    assert "/nowhere holds no demonstrations" in capsys.readouterr().err
    assert main(["--config", str(path), "--set", "model.max_text_tokens=3"]) == 2
    assert "the model takes 3" in capsys.readouterr().err
    assert main(["--config", str(path), "--json", str(tmp_path / "out.json")]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["step"] == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data=[a", "--set data=[a: not valid YAML: "),
        ("cameras=[base]", "cameras is ['base']; needed are intrinsics by view"),
        ("data=scenes", "lacks embodiment, period_ns, proprioception_names, action_names, episodes; give packed"),
        ("data=packed", "proprioception.npy cannot be read: [Errno 2] No such file"),
        ("data=empty", "view_base.npy cannot be read: No data left in file"),
    ],
)
def test_wrong_input_ends_in_a_sentence(tmp_path, monkeypatch, capsys, setting, message):
    draw_scenes(tmp_path / "scenes", 2)
    for name, lost in (("packed", "proprioception"), ("empty", "view_base")):
        write_packed(SyntheticSource(2, image_size=32), tmp_path / name)
        (tmp_path / name / f"{lost}.npy").unlink()
    (tmp_path / "empty" / "view_base.npy").touch()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(make_config(tmp_path / "run").to_dict()))
    monkeypatch.chdir(tmp_path)
    assert main(["--config", "config.yaml", "--set", setting]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left", "model"), SafetensorError("No space left")])
def test_a_full_disk_ends_in_a_sentence(tmp_path, capsys, error):
    def full(*_):
        raise error

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(make_config(tmp_path / "run").to_dict()))
    assert run_command("e0 train", "", "", full, ["--config", str(tmp_path / "config.yaml")]) == 1
    told = capsys.readouterr().err
    assert "No space left" in told and "mend this and use --continue" in told


def test_the_rate_warms_up_and_falls_as_a_cosine():
    config = TrainConfig(learning_rate=1.0, final_learning_rate=0.1, warmup_steps=10, steps=110)
    assert learning_rate(config, 0) == pytest.approx(0.1) and learning_rate(config, 9) == pytest.approx(1.0)
    assert learning_rate(config, 10) == 1.0 and learning_rate(config, 60) == pytest.approx(0.55)
    assert learning_rate(config, 109) == pytest.approx(0.1, abs=1e-3)


def grey() -> Batch:
    """64 samples, of which every second one lacks the first view."""
    return Batch(
        images=torch.zeros(64, 2, 3, 32, 32),
        view_mask=torch.tensor([[True, True], [False, True]]).repeat(32, 1),
        view_offset=torch.zeros(64, 2, 3),
        text_tokens=torch.zeros(64, 12, dtype=torch.long),
        text_mask=torch.ones(64, 12, dtype=torch.bool),
        proprio=torch.zeros(64, 8),
        action_tokens=torch.zeros(64, 4, 8, dtype=torch.long),
        action_mask=torch.ones(64, 4, 8, dtype=torch.bool),
        committed=torch.zeros(64, dtype=torch.long),
    )


def test_perturbing_keeps_a_view_and_leaves_the_batch_alone(tmp_path):
    config = make_config(tmp_path, view_dropout=0.8)
    batch = grey()
    got = perturb(batch, config, step_generator("cpu", 0, 0))
    assert got.view_mask.any(1).all() and not (got.view_mask & ~batch.view_mask).any()
    assert got.view_mask.sum() < batch.view_mask.sum()
    assert set(got.committed.tolist()) == {0, 1, 2}
    assert (got.view_offset[:, 0] != 0).any() and (got.view_offset[:, 1] == 0).all()
    assert batch.view_mask.sum() == 96 and (batch.images == 0).all() and (batch.committed == 0).all()
    again = perturb(batch, config, step_generator("cpu", 0, 0))
    assert torch.equal(got.images, again.images)
    assert not torch.equal(perturb(batch, config, step_generator("cpu", 0, 1)).images, got.images)


@pytest.mark.parametrize("augment", [True, False])
def test_a_model_that_does_not_mask_views_sees_dropped_ones_black(tmp_path, augment):
    """As it sees those that a robot does not send."""
    shown = {}
    for masks in (True, False):
        config = make_config(tmp_path, view_dropout=0.8, augment=augment, model={"mask_absent_views": masks})
        shown[masks] = perturb(grey(), config, step_generator("cpu", 0, 0))
    black, plain = shown[False], shown[True]
    there = plain.view_mask
    assert torch.equal(black.view_mask, there) and not there.all()
    assert (black.images[~there] == -1).all() and (black.view_offset[~there] == 0).all()
    assert torch.equal(black.images[there], plain.images[there]) and (plain.images[~there] > -1).any()
    assert torch.equal(black.view_offset[there], plain.view_offset[there])


def test_dimensions_behind_those_of_the_data_are_padding(tmp_path):
    config = make_config(tmp_path, model={"action_dim": 10}, steps=1, warmup_steps=0)
    assert training.prepare(config, training.Workers(0, 1, torch.device("cpu")), None).model.columns == 8
    train(config)
    assert load_model(read_checkpoint(tmp_path / "checkpoint")).columns == 8


def test_an_unusable_device_is_named():
    with pytest.raises(TrainConfigError, match="device is 'tpu9'"):
        training.pick_device("tpu9")


def test_the_checkpoint_is_a_policy_and_a_start_for_another_run(straight, tmp_path):
    policy = load_policy(str(straight / "checkpoint"), device="cpu", dtype="float32")
    source = SyntheticSource(6, image_size=32)
    episode = source.episodes[0]
    observation = Observation(0, source.images(0, 0), episode.proprioception[0, :7], 1.0, episode.instruction)
    rows = policy.infer(observation, None).rows
    assert policy.embodiment == "panda" and rows.shape == (4, 8) and np.isfinite(rows).all()
    np.testing.assert_allclose(
        rows[:, [1, 2, 4, 5, 6]], np.tile(episode.actions[0, [1, 2, 4, 5, 6]], (4, 1)), atol=1e-9
    )

    changes = {"initial_weights": str(straight / "checkpoint"), "steps": 2, "learning_rate": 1e-9}
    train(make_config(tmp_path / "next", synthetic_episodes=5, final_learning_rate=0.0, **changes))
    one, two = read_checkpoint(straight / "checkpoint"), read_checkpoint(tmp_path / "next" / "checkpoint")
    assert one.transform == two.transform, "the statistics of the first run are kept"
    before, after = load_model(one), load_model(two)
    for a, b in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    with pytest.raises(TrainConfigError, match=r"model\.bins is 64; .*checkpoint has 32"):
        train(make_config(tmp_path / "other", model={"bins": 64}, **changes))


def test_published_weights_are_loaded_and_reported(tmp_path, capsys):
    table = torch.full((400, 32), 0.5)
    save_file({"model.language_model.embed_tokens.weight": table}, str(tmp_path / "model.safetensors"))
    config = make_config(tmp_path / "run", steps=1, warmup_steps=0, learning_rate=1e-9, initial_weights=str(tmp_path))
    train(config)
    told = capsys.readouterr().out
    assert "1 tensors loaded" in told and "warning: viewpoints of base are perturbed as if" in told
    model = load_model(read_checkpoint(tmp_path / "run" / "checkpoint"))
    torch.testing.assert_close(model.backbone.embed_tokens.weight, table[:384], atol=1e-5, rtol=0)
