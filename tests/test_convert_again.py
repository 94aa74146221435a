"""A conversion run again: only what is new is converted, and only what was whole is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import e0_ros.convert_bags
import e0_ros.core.dataset_episode
from e0_policy.embodiment import EmbodimentError, load_embodiment
from e0_policy.resources import config_dir
from e0_ros.convert import _choose, main
from e0_ros.convert_bags import Job, Plan, jobs
from e0_ros.core.bag_recovery import recover
from e0_ros.core.dataset_config import ConvertConfig
from e0_ros.core.dataset_episode import LeftOut
from e0_ros.core.dataset_facts import Facts
from e0_ros.core.dataset_layout import DatasetError, Existing
from e0_ros.core.definitions import installed
from tests.test_convert import ALL, TICKS, run


@pytest.fixture
def converted(monkeypatch) -> list[str]:
    """Names of the bags that were converted, as they are."""
    names, real = [], e0_ros.convert_bags.convert_bag

    def counted(path, *arguments):
        names.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(e0_ros.convert_bags, "convert_bag", counted)
    return names


def test_growth_converts_the_new_bag_alone_and_nothing_if_there_is_none(tmp_path: Path, converted) -> None:
    bags, out = tmp_path / "bags", tmp_path / "out"
    out.symlink_to("disk/set")
    for i in range(3):
        replace(TICKS, name=f"b{i}", seed=i).write(bags)
    run(bags, out)
    assert converted == ["b0", "b1", "b2"]
    replace(TICKS, name="b3", seed=3).write(bags)
    report = run(bags, out)
    assert converted == ["b0", "b1", "b2", "b3"]
    assert (report.added, report.episodes) == (1, 4)
    assert [entry["bag"] for entry in report.left_out] == ["b0", "b1", "b2"]
    (bags / "b0").rename(bags / "another_name")  # the content counts
    assert run(bags, out).added == 0
    assert len(converted) == 4
    assert out.is_symlink() and [path.name for path in (tmp_path / "disk").iterdir()] == ["set"]


def test_what_an_interrupted_run_made_is_kept_and_not_even_hashed(tmp_path: Path, converted, monkeypatch) -> None:
    for i in range(2):
        replace(TICKS, name=f"b{i}", seed=i).write(tmp_path / "bags")
    with monkeypatch.context() as patch:
        patch.setattr("e0_ros.convert.write_dataset", lambda *_: (_ for _ in ()).throw(DatasetError("interrupted")))
        with pytest.raises(DatasetError, match="interrupted"):
            run(tmp_path / "bags", tmp_path / "out")
    monkeypatch.setattr(e0_ros.convert_bags, "bag_digest", None)
    assert run(tmp_path / "bags", tmp_path / "out").episodes == 2
    assert converted == ["b0", "b1"]


def test_a_refusal_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    bags, out = tmp_path / "bags", tmp_path / "out"
    TICKS.write(bags)

    def refuse(bag):
        raise LeftOut("the code of yesterday does not like it")

    with monkeypatch.context() as patch:
        patch.setattr(e0_ros.core.dataset_episode, "describe_bag", refuse)
        with pytest.raises(DatasetError, match="of yesterday"):
            run(bags, out)
    assert run(bags, out).episodes == 1


def test_an_arm_of_ones_own_that_is_mended_is_read_again(tmp_path: Path, capsys) -> None:
    bags, out, arm = tmp_path / "bags", tmp_path / "out", tmp_path / "arm.yaml"
    TICKS.write(bags)
    good = (config_dir() / "embodiment" / "fr3.yaml").read_text()
    for faulty in (good.replace("velocity: [2.62,", "velocity: ["), "joint_names: ["):
        arm.write_text(faulty)
        with pytest.raises(EmbodimentError, match=r"arm\.yaml"):
            run(bags, out, embodiment=str(arm))
        assert main([str(bags), "--out", str(out), "--embodiment", str(arm), "--jobs", "1"]) == 1
        assert "arm.yaml" in capsys.readouterr().err
    arm.write_text(good)
    assert run(bags, out, embodiment=str(arm)).episodes == 1


def test_work_that_is_kept_depends_on_bag_settings_arm_and_code(tmp_path: Path, monkeypatch) -> None:
    bag, arm = TICKS.write(tmp_path), tmp_path / "arm.yaml"
    text = (config_dir() / "embodiment" / "fr3.yaml").read_text()
    arm.write_text(text)

    def folder(**settings) -> str:
        load_embodiment.cache_clear()  # as in another process
        plan = Plan(ConvertConfig(embodiment=str(arm), **settings), ALL)
        return jobs([bag], tmp_path, plan)[0].work.name

    first = folder()
    assert folder() == first
    seen = {first, folder(fps=10)}
    arm.write_text(text.replace("gripper_width_m: 0.08", "gripper_width_m: 0.07"))
    seen.add(folder())
    monkeypatch.setattr(e0_ros.convert_bags, "code_version", lambda: "another")
    seen.add(folder())
    file = next(bag.glob("*.mcap"))
    file.write_bytes(file.read_bytes() + b" ")
    seen.add(folder())
    assert len(seen) == 5


def test_a_bag_and_what_was_recovered_from_it_are_one_episode(tmp_path: Path) -> None:
    bags = tmp_path / "bags"
    TICKS.write(bags, crash=True)
    (left,) = bags.iterdir()
    copy = recover(left, installed()).path.name
    report = run(bags, tmp_path / "both")
    assert (report.episodes, report.salvaged) == (1, 0)
    assert [(e["bag"], e["reason"]) for e in report.left_out] == [(left.name, f"{copy} was recovered from it")]


@pytest.mark.parametrize(("there", "new"), [("a.partial", "a-recovered"), ("a-recovered", "a.partial")])
def test_what_is_in_the_dataset_has_no_twin_in_it(there: str, new: str) -> None:
    def facts(bag: str) -> Facts:
        return Facts(bag, digest=bag, start_ns=5, recovered_from="a.partial" if bag == "a-recovered" else "")

    job, other = (Job(Path(name), Path("work")) for name in (new, "elsewhere/a"))
    existing = Existing(Path(), {}, {}, {"episodes": [vars(facts(there)), {"bag": "b", "digest": "b", "start_ns": 5}]})
    taken, left_out = _choose([job, other], {job: facts(new), other: facts("a")}, existing)
    assert taken == [other]
    assert [entry["bag"] for entry in left_out] == [new] and there in left_out[0]["reason"]
