"""`e0 record --attach` and `e0 record sim` on a pseudo-terminal, as a person uses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from e0_ros.core.bag_reader import Bag
from e0_ros.launcher import Launcher
from e0_ros.resolve import resolve
from tests.person import Seat

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Path]:
    """A graph in lock-step whose expert solves what it is asked; the folder of its bags."""
    values = {"simulator": "fr3_plant", "mode": "lockstep", "size": 64, "bag_dir": str(tmp_path / "bags")}
    settings = {"bridge": {"timeout_s": 60.0}, "chunk_executor": {"lead_ms": 50.0}}
    with Launcher(resolve("sim", values, settings), tmp_path / "logs") as launcher:
        launcher.wait_ready(180.0)
        yield tmp_path / "bags"


def test_attached_to_a_graph_a_take_ends_by_itself_gets_its_verdict_and_is_recorded_again(
    scripted: Path, person_at: Seat
) -> None:
    person = person_at(["record", "--attach", "--task", "Reach-v0", "--seed", "5"])
    person.wait_for("space start")
    person.wait_for(r"idle.*GB free")
    person.press("s")
    person.wait_for("no take is running")
    person.press(" ")
    person.wait_for("recording ")
    first = person.wait_for(r"success .*?(/\S+)  ok")[1]
    assert Bag(Path(first)).custom["seed"] == "5" and Bag(Path(first)).custom["outcome"] == "success"
    person.press("r")
    person.wait_for(r"discarded: \S+/discarded/")
    second = person.wait_for(r"success .*?(/\S+)  ok")[1]
    assert not Path(first).exists() and (scripted / "discarded" / Path(first).name).is_dir()
    assert Bag(Path(second)).custom["seed"] == "5"
    person.press(" ")
    third = person.wait_for(r"success .*?(/\S+)  ok")[1]
    assert Bag(Path(third)).custom["seed"] == "6"
    person.press("q")
    assert person.end() == 0
    kept = sorted(path.name for path in scripted.iterdir() if path.name != "discarded")
    assert kept == sorted([Path(second).name, Path(third).name])


def test_takes_of_a_graph_of_its_own_are_labelled_discarded_and_told_apart(tmp_path: Path, person_at: Seat) -> None:
    bags = tmp_path / "bags"
    words = ["sim", "simulator:=fr3_plant", "source:=external", "size:=64", f"bag_dir:={bags}"]
    person = person_at(
        ["record", *words, "--log-dir", str(tmp_path / "logs"), "--instruction", "wait", "--instruction", "stay"]
    )
    person.wait_for("space start")
    person.press(" ")
    bag = Path(person.wait_for(r"recording (\S+)")[1])
    person.wait_for(r"REC +\d+\.\d s")
    person.press("q")
    person.wait_for("end the take first")
    person.press("f")
    person.wait_for(rf"failure .*{bag}")
    person.wait_for("static joints: no joint moved more")
    assert Bag(bag).custom["outcome"] == "failure" and Bag(bag).custom["instruction"] == "wait"
    person.press("i")
    person.wait_for("next instruction: 'stay'")
    person.press("n")
    person.wait_for("instruction: ")
    person.press("put it down\n")
    person.wait_for("next instruction: 'put it down'")
    person.press(" ")
    person.wait_for("recording ")
    person.press("r")
    person.wait_for("discard .*not kept")
    last = Path(person.wait_for(r"recording (\S+)")[1])
    person.process.terminate()
    person.wait_for("unlabelled")
    assert person.end() == 0
    assert Bag(last).custom["outcome"] == "unlabelled" and Bag(last).custom["instruction"] == "put it down"
    assert len(list((bags / "discarded").iterdir())) == 1
    assert sorted(path.name for path in bags.iterdir()) == sorted(["discarded", bag.name, last.name])


def test_without_a_graph_it_says_so(capsys):
    from e0_ros.record_command import main

    assert main([]) == 2 and "either --attach or a graph" in capsys.readouterr().err
    assert main(["sim", "--attach"]) == 2
    assert main(["simm"]) == 1 and "did you mean 'sim'" in capsys.readouterr().err
