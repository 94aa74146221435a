from __future__ import annotations

import json

from lerobot_folder import write_folder

from e0_policy.loader_bench import main


def test_every_rate_is_measured(tmp_path, capsys):
    write_folder(tmp_path / "d", (20, 16, 12))
    command = ["--data", str(tmp_path / "d"), "--batch", "4", "--seconds", "0.05", "--json", str(tmp_path / "out.json")]
    assert main(command) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    assert (figures["views"], figures["video_px"], figures["model_px"]) == (2, "32 x 32", 64)
    assert all(figures[name] > 0 for name in figures if name.startswith(("videos", "arrays", "batch", "step")))
    assert 0 < figures["share"] < 1
    assert "arrays, at random" in capsys.readouterr().out
    assert not (tmp_path / "d.cache").exists()


def test_a_folder_of_another_kind_is_named(tmp_path, capsys):
    assert main(["--data", str(tmp_path)]) == 2
    assert "meta/info.json is missing; give a LeRobotDataset" in capsys.readouterr().err
