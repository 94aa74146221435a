import json
import shutil
from pathlib import Path

import pytest
from synthetic_bags import fill, make_bag, open_bag

from e0_ros.bag_command import check, repair
from e0_ros.config import ConfigError
from e0_ros.core.bag_check import DAMAGED, PARTIAL, WHOLE, check_bag
from e0_ros.interfaces import CLOCK, JOINT_STATES


def damage(bag: Path, share: float = 0.4) -> None:
    """Flip a bit inside the file's chunks."""
    file = next(bag.glob("*.mcap"))
    raw = bytearray(file.read_bytes())
    raw[int(share * len(raw))] ^= 4
    file.write_bytes(raw)


def test_a_whole_bag_has_what_it_counts(tmp_path: Path) -> None:
    state = check_bag(make_bag(tmp_path, count=100))
    assert (state.state, state.kept, state.missing, state.damage) == (WHOLE, 110, 0, ())
    assert {t.topic: t.kept for t in state.topics} == {JOINT_STATES.name: 100, CLOCK.name: 10}


def test_what_damage_took_is_counted_exactly(tmp_path: Path) -> None:
    bag = make_bag(tmp_path, count=100)
    damage(bag)
    state = check_bag(bag)
    assert state.state == DAMAGED and state.kept + state.missing == 110 and 0 < state.missing < 30
    assert len(state.damage) == 1 and "chunk" in state.damage[0]


def test_what_a_crash_took_was_never_counted(tmp_path: Path) -> None:
    writer = open_bag(tmp_path)
    fill(writer, 100)
    writer.flush()
    state = check_bag(tmp_path / "a.partial")
    assert state.state == PARTIAL and state.kept == 110 and state.missing is None and state.damage


def test_metadata_that_counts_otherwise_is_damage(tmp_path: Path) -> None:
    bag = make_bag(tmp_path, count=100)
    text = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(text.replace("message_count: 100", "message_count: 103"))
    state = check_bag(bag)
    assert state.state == DAMAGED and state.missing == 3 and "counts" in state.damage[0]


def test_check_names_every_bag_of_a_folder_and_its_status_can_be_trusted(tmp_path: Path, capsys) -> None:
    good = make_bag(tmp_path, "good", count=50)
    assert check([str(tmp_path)]) == 0
    shutil.copytree(good, tmp_path / "more" / "bad")
    damage(tmp_path / "more" / "bad")
    out = tmp_path / "out.json"
    assert check([str(tmp_path), "--json", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["whole", "damaged", "whole"]
    assert f"{JOINT_STATES.name} " in lines[1] and " lost (" in lines[1]
    assert [bag["state"] for bag in json.loads(out.read_text())["bags"]] == [DAMAGED, WHOLE]
    with pytest.raises(ConfigError, match="no such file"):
        check([str(tmp_path / "nothing")])


def test_repair_leaves_the_original_and_a_whole_copy(tmp_path: Path, capsys) -> None:
    bag = make_bag(tmp_path, count=100)
    assert repair([str(bag)]) == 0 and not (tmp_path / "a-recovered").exists(), "there is nothing to do"
    damage(bag)
    before = next(bag.glob("*.mcap")).read_bytes()
    assert repair([str(bag)]) == 0
    assert next(bag.glob("*.mcap")).read_bytes() == before
    copy = check_bag(tmp_path / "a-recovered")
    assert copy.state == WHOLE and copy.kept == check_bag(bag).kept
    assert capsys.readouterr().out.splitlines()[-1].startswith("whole")
    assert repair([str(bag)]) == 1, "a copy is never overwritten"


@pytest.mark.parametrize("command", [check, repair])
def test_without_a_bag_the_words_are_wrong(command) -> None:
    with pytest.raises(SystemExit) as ended:
        command([])
    assert ended.value.code == 2
