from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from e0_ros.config import ConfigError
from sim.record_bulk import _choices, settings_of
from sim.record_jobs import Job, finished, jobs, parse_seeds, remember, set_aside
from tests.test_policies import DATA, write


def bag(folder: Path, outcome: str) -> Path:
    folder.mkdir(parents=True)
    text = yaml.safe_dump({"rosbag2_bagfile_information": {"version": 9, "custom_data": {"outcome": outcome}}})
    (folder / "metadata.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(("text", "seeds"), [("1000:1003", [1000, 1001, 1002]), ("7", [7]), ("0:1", [0])])
def test_seeds(text, seeds):
    assert list(parse_seeds(text)) == seeds


@pytest.mark.parametrize("text", ["", "a", "5:5", "6:5", "-1:4", "1:2:3", ":5"])
def test_seeds_that_name_none_are_refused(text):
    with pytest.raises(ConfigError, match="seeds are"):
        parse_seeds(text)


def test_jobs_go_task_by_task_and_a_task_named_twice_is_recorded_once():
    todo = jobs(["PushCube-v1", "PickCube-v1", "PushCube-v1"], range(2))
    assert [job.name for job in todo] == [
        *("pushcube-v1-000000", "pushcube-v1-000001"),
        *("pickcube-v1-000000", "pickcube-v1-000001"),
    ]


def test_a_task_that_cannot_be_part_of_a_path_is_refused():
    with pytest.raises(ConfigError, match="task is"):
        jobs(["../x"], range(1))


@pytest.mark.parametrize(
    ("outcome", "done"), [("success", True), ("failure", True), ("unlabelled", False), ("discard", False), ("", False)]
)
def test_only_an_episode_that_ran_to_its_end_is_finished(tmp_path, outcome, done):
    job = Job("Reach-v0", 3)
    assert not finished(tmp_path, job)
    bag(tmp_path / job.name, outcome)
    assert finished(tmp_path, job) is done


def test_a_bag_without_readable_metadata_is_not_finished(tmp_path):
    job = Job("Reach-v0", 3)
    folder = bag(tmp_path / job.name, "success")
    (folder / "metadata.yaml").write_text("a: [", encoding="utf-8")
    assert not finished(tmp_path, job)
    (folder / "metadata.yaml").unlink()
    assert not finished(tmp_path, job)


def test_what_attempts_left_is_kept_aside_and_frees_the_name(tmp_path):
    job = Job("Reach-v0", 3)
    for attempt in range(2):
        bag(tmp_path / (job.name + ".partial"), "")
        bag(tmp_path / "discarded" / job.name, "discard")
        bag(tmp_path / job.name, "unlabelled")
        moved = list(set_aside(tmp_path, job))
        assert len(set(moved)) == 3 and all((place / "metadata.yaml").is_file() for place in moved)
        assert not (tmp_path / job.name).exists() and not (tmp_path / "discarded" / job.name).exists(), attempt
    assert len(list((tmp_path / "discarded").iterdir())) == 6
    assert list(set_aside(tmp_path, job)) == []


def test_settings_are_typed_and_grouped_by_node():
    words = ["bridge.disturbance_rad=0.02", "bridge.judge=true", "episode_recorder.compression=lz4"]
    assert settings_of(words) == {
        "bridge": {"disturbance_rad": 0.02, "judge": True},
        "episode_recorder": {"compression": "lz4"},
    }


@pytest.mark.parametrize("word", ["bridge", "bridge=1", "x.y", ".y=1", "x.=1", "x.y=[1"])
def test_settings_of_another_form_are_refused(word):
    with pytest.raises(ConfigError, match="--set"):
        settings_of([word])


def test_a_folder_takes_only_episodes_recorded_with_the_same_choices(tmp_path):
    choices = {"size": 128, "views": ["base", "wrist"], "settings": {"bridge": {"disturbance_rad": 0.02}}}
    remember(tmp_path / "bags", choices)
    remember(tmp_path / "bags", dict(reversed(choices.items())))
    with pytest.raises(ConfigError, match="size 128, now it is 224"):
        remember(tmp_path / "bags", {**choices, "size": 224})
    with pytest.raises(ConfigError, match="settings"):
        remember(tmp_path / "bags", {**choices, "settings": {}})
    with pytest.raises(ConfigError, match="controller"):
        remember(tmp_path / "bags", {**choices, "controller": "impedance"})


def test_episodes_of_a_policy_are_not_mixed_with_those_of_another_in_its_place(tmp_path):
    def choices(checkpoint):
        shared = {"task": "Reach-v0", "bag_dir": "x", "source": "policy", "checkpoint": checkpoint}
        return _choices({"arguments": shared, "settings": {"policy": {"settings": "{steps: 2}"}}, "max_steps": 0})

    here, elsewhere = str(write(tmp_path / "a")), str(write(tmp_path / "b"))
    remember(tmp_path / "bags", choices(here))
    remember(tmp_path / "bags", choices(elsewhere))
    write(tmp_path / "a", {**DATA, "weights_sha256": "ef" * 32})
    with pytest.raises(ConfigError, match=f"checkpoint '{'ab' * 8}/cdcdcdcd', now it is '{'ef' * 8}/"):
        remember(tmp_path / "bags", choices(here))
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        choices(str(tmp_path / "nowhere"))
    assert choices("")["checkpoint"] == ""
