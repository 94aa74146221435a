import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from e0_policy.files import write_json

ROOT = Path(__file__).resolve().parents[1]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(VALUES)
def test_whatever_is_measured_is_strict_json(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "figures.json"
    write_json(path, value)
    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_what_was_not_measured_is_null_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"violations": math.nan, "rtf": 1.0, "spread": (1, math.inf), "name": "a"})
    found = json.loads((tmp_path / "f.json").read_text())
    assert found == {"violations": None, "rtf": 1.0, "spread": [1, None], "name": "a"}


def test_every_option_json_writes_through_it() -> None:
    for folder in ("e0_policy", "e0_ros", "sim"):
        for path in (p for p in (ROOT / folder).rglob("*.py") if "core" not in p.parts):  # cores have no options
            assert not re.search(r"options\.json\.write_text|json\.dump\(", path.read_text()), path


def test_a_file_that_cannot_be_finished_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "f.json"
    write_json(path, {"n": 1})
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 1} and [p.name for p in path.parent.iterdir()] == ["f.json"]
