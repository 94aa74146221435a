import json
import re
import weakref
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from episode_bags import make_episode
from lerobot_folders import write_dataset

from e0_ros.core.bag_reader import Bag, BagMessage
from e0_ros.core.inspection_bag import inspect_bag
from e0_ros.inspect_command import inspect, main
from e0_ros.synthetic_episode import SyntheticEpisode

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good takes, one with a gap and one with a frozen camera, one cut off and one whose bytes are damaged."""
    root = tmp_path_factory.mktemp("bags")
    for name in ("a_good", "b_good"):
        make_episode(root, name, troubled=False, seed="3")
    make_episode(root, "c_gap", missing=range(20, 28), troubled=False)
    make_episode(root, "d_frozen", frozen=range(20, 50), troubled=False)
    cut = make_episode(root, "e_cut", troubled=False)
    (cut / "metadata.yaml").unlink()
    cut = cut.rename(root / "e_cut.partial")
    file = next(cut.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    file = next(make_episode(root, "f_damaged", troubled=False).glob("*.mcap"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    file.write_bytes(data)
    (root / "g_junk").mkdir()
    (root / "g_junk" / "g_junk_0.mcap").write_bytes(b"junk")
    make_episode(root / "discarded", "h_discarded", troubled=False)
    return root


def test_every_take_is_looked_at_and_the_bad_ones_come_first(bags):
    takes = inspect([bags])
    assert [t.name for t in takes] == ["f_damaged", "e_cut", "g_junk_0", "c_gap", "d_frozen", "a_good", "b_good"]
    by_name = {t.name: t for t in takes}
    assert all(by_name[name].fault for name in ("e_cut", "f_damaged", "g_junk_0"))
    assert 10 < by_name["e_cut"].frames < 60 and "salvaged" in by_name["e_cut"].fault
    assert any("gap base: nothing for 450 ms at 0.95 s" in text for text in by_name["c_gap"].findings)
    assert any("frozen wrist: the same picture for 1.45 s" in text for text in by_name["d_frozen"].findings)
    good = by_name["a_good"]
    assert not good.findings and good.reference().rate_hz == pytest.approx(20.0) and good.seed == "3"
    assert good.motion.lag_ms == 20.0 and 0.010 < max(good.motion.error_max) < 0.014


def test_processes_find_what_one_process_finds(bags):
    assert inspect([bags], pictures=True, processes=3) == inspect([bags], pictures=True)


class Held:
    """Counts the images of cameras and observations that are in memory while bags are read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._alive: list[weakref.ref[BagMessage]] = []
        self._arrays: list[weakref.ref[np.ndarray]] = []
        self.most = 0
        messages, decode = Bag.messages, Bag.decode

        def counted(bag, *arguments, **options):
            for message in messages(bag, *arguments, **options):
                yield self._noted(message)

        def decoded(bag, message):
            found = decode(bag, message)
            for view in getattr(found, "views", []):
                self._arrays.append(weakref.ref(view.data))
            return found

        monkeypatch.setattr(Bag, "messages", counted)
        monkeypatch.setattr(Bag, "decode", decoded)

    def _noted(self, message: BagMessage) -> BagMessage:
        if message.type.endswith("Image"):
            self._alive.append(weakref.ref(message))
        self._alive = [held for held in self._alive if held() is not None]
        self._arrays = [held for held in self._arrays if held() is not None]
        self.most = max(self.most, len(self._alive) + len(self._arrays))
        return message


@pytest.mark.parametrize(("pictures", "bound"), [(False, 1), (True, 2 * 3 + 1)])
@pytest.mark.parametrize("salvage", [False, True])
def test_few_images_are_held_however_long_the_take_is(tmp_path, monkeypatch, pictures, bound, salvage):
    """Without pictures the one that is read; with them three of each of two views too."""
    episode = SyntheticEpisode(seconds=2.0, joint_hz=50.0, observation_images=True)
    bag = episode.write(tmp_path, crash=salvage)
    held = Held(monkeypatch)
    take = inspect_bag(bag, pictures=pictures)
    assert take.frames > 50 and 0 < held.most <= bound
    assert {view: len(jpegs) for view, jpegs in take.thumbnails.items()} == (
        dict.fromkeys(episode.views, 3) if pictures else {}
    )


def test_thumbnails_are_the_first_the_middle_and_the_last_image(tmp_path):
    path = make_episode(tmp_path, "a", count=9)
    shown = [
        float(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:4].mean())
        for jpeg in inspect_bag(path).thumbnails["wrist"]
    ]
    assert shown == pytest.approx([0, 4 * 4, 4 * 8], abs=3)


def test_the_exit_status_can_be_trusted(bags, tmp_path, capsys):
    assert main([str(bags)]) == 0
    assert main([str(bags), "--strict"]) == 1
    assert main([str(bags / "a_good"), str(bags / "b_good"), "--strict"]) == 0
    assert main([str(bags / "g_junk")]) == 1
    capsys.readouterr()
    assert main([str(tmp_path)]) == 1
    assert "no bag" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no such file" in capsys.readouterr().out
    assert main([str(bags / "a_good"), "--html", str(tmp_path / "no" / "x.html")]) == 1


def test_the_terminal_shows_a_table_with_sums_and_limits(bags, capsys):
    assert main([str(bags), "--rows", "5"]) == 0
    out = capsys.readouterr().out
    assert "X f_damaged" in out and "! c_gap" in out and "and 2 more takes, 0 of them suspicious" in out
    assert "7 takes, 5 suspicious, 3 damaged" in out and "PickCube-v1: pick up the cube: " in out


def test_one_bag_is_shown_with_its_streams(bags, capsys):
    assert main([str(bags / "a_good")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["300", "100.0", "10.0", "/franka/joint_states", "sensor_msgs/msg/JointState"] in rows


def test_the_figures_are_written_as_json(bags, tmp_path):
    assert main([str(bags), "--json", str(tmp_path / "x.json")]) == 0
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["totals"]["takes"] == len(written["takes"]) == 7
    assert written["takes"][0]["suspicious"] and "thumbnails" not in written["takes"][0]
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


class Page(HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes


def test_the_page_holds_everything_and_asks_nobody(bags, tmp_path):
    page = tmp_path / "report.html"
    assert main([str(bags), "--html", str(page)]) == 0
    text = page.read_text()
    parsed = Page(text)
    assert parsed.tags.count("tbody") == 7 and parsed.tags.count("svg") >= 6 and parsed.tags.count("script") == 1
    sources = [value for name, value in parsed.attributes if name in ("src", "href")]
    assert len(sources) > 30 and all(value.startswith("data:image/jpeg;base64,") for value in sources)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert "default-src 'none'" in text


def test_text_from_a_bag_is_text_on_the_page(tmp_path):
    make_episode(tmp_path / "bags", "hostile", instruction=HOSTILE, task=HOSTILE, outcome=HOSTILE, episode_id=HOSTILE)
    page = tmp_path / "report.html"
    assert main([str(tmp_path / "bags"), "--html", str(page)]) == 0
    parsed = Page(page.read_text())
    assert parsed.tags.count("script") == 1 and "onerror" not in dict(parsed.attributes)
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in page.read_text()


def test_text_from_a_dataset_is_text_on_the_page(tmp_path):
    features = json.loads((write_dataset(tmp_path / "d") / "meta" / "info.json").read_text())["features"]
    features["observation.state"]["names"] = [HOSTILE] * 3
    write_dataset(tmp_path / "d", tasks=(HOSTILE,), robot_type=HOSTILE, features=features)
    page = tmp_path / "report.html"
    assert main([str(tmp_path / "d"), "--html", str(page)]) == 0
    parsed = Page(page.read_text())
    assert (
        parsed.tags.count("script") == 1 and parsed.tags.count("svg") > 3 and "onerror" not in dict(parsed.attributes)
    )


def test_pictures_are_left_out_beyond_the_size_that_was_allowed(bags, tmp_path, capsys):
    page = tmp_path / "report.html"
    assert main([str(bags), "--html", str(page), "--html-mb", "0"]) == 0
    assert page.stat().st_size < 60_000 and "pictures of 7 takes left out" in capsys.readouterr().out


def test_numbers_that_are_not_finite_do_not_reach_the_files(tmp_path):
    root = write_dataset(tmp_path / "d")
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    broken = [[float(np.nan)] * 3] * table.num_rows
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, "action", pa.array(broken, pa.list_(pa.float32()))), path)
    assert main([str(root), "--json", str(tmp_path / "x.json"), "--html", str(tmp_path / "x.html")]) == 0
    assert "action: column 0 is nan in frame 0" in json.loads((tmp_path / "x.json").read_text())["takes"][0]["fault"]
