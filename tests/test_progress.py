import io

from e0_ros.progress import Progress, clock


def test_the_line_tells_share_rate_and_time_left():
    progress = Progress(8, "bags", io.StringIO())
    progress.done = 2
    assert progress.line(4.0, "a") == "[######                  ] 2/8 bags  0.50/s  0:12 left  a"
    assert Progress(0, "bags", io.StringIO()).line(0.0) == "[########################] 0/0 bags  0.00/s  0:00 left"


def test_a_log_gets_the_last_line_and_what_is_said():
    log = io.StringIO()
    progress = Progress(3, "bags", log)
    for name in "abc":
        progress.advance(name)
    progress.say("b is damaged")
    progress.close()
    lines = log.getvalue().splitlines()
    assert [line.split("  ")[0].split("] ")[-1] for line in lines] == ["3/3 bags", "b is damaged"]


def test_durations_read_as_clocks():
    assert [clock(s) for s in (0, 62, 3723.4)] == ["0:00", "1:02", "1:02:03"]
