"""ARCHITECTURE.md's topics and services against the code; `python tests/test_architecture.py` rewrites them."""

import re
from pathlib import Path

from e0_ros.interfaces import SERVICES, TOPICS, Qos, camera_info_topic, camera_topic

PAGE = Path(__file__).resolve().parents[1] / "ARCHITECTURE.md"
BEGIN, END = "<!-- topics: begin -->\n", "<!-- topics: end -->\n"


def qos(q: Qos) -> str:
    words = [str(q.depth), "reliable" if q.reliable else "best effort", *(["latched"] if q.latched else [])]
    return ", ".join(words)


def tables() -> str:
    rows = ["| topic | type | QoS | rate | stamp |", "|---|---|---|---|---|"]
    for t in (camera_topic("<view>"), camera_info_topic("<view>"), *TOPICS):
        mark = " (privileged)" if t.privileged else ""
        rows.append(f"| `{t.name}`{mark} | {t.type} | {qos(t.qos)} | {t.rate} | {t.stamp} |")
    rows += ["", "| service | type | owner |", "|---|---|---|"]
    rows += [f"| `{s.name}` | {s.type} | {s.owner} |" for s in SERVICES]
    return "\n".join(rows) + "\n"


def test_topics_and_services_are_those_of_the_code():
    text = PAGE.read_text()
    shown = text[text.index(BEGIN) + len(BEGIN) : text.index(END)]
    assert shown == tables(), "run: python tests/test_architecture.py"


def test_names_that_the_page_mentions_exist():
    known = {t.name for t in TOPICS} | {s.name for s in SERVICES}
    mentioned = set(re.findall(r"/e0/[a-z_/]+", PAGE.read_text()))
    assert mentioned <= known


def rewrite() -> None:
    text = PAGE.read_text()
    if BEGIN not in text:
        text += f"\n## Topics and services\n\n{BEGIN}{END}"
    head, rest = text.split(BEGIN)
    PAGE.write_text(head + BEGIN + tables() + END + rest.split(END)[1])


if __name__ == "__main__":
    rewrite()
