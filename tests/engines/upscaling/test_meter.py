import pytest

from swise_engines.upscaling.meter import clock, progress_line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (9.4, "0:09"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_a_duration_is_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text


def test_a_line_has_share_speed_and_time_left():
    # 30 of 120 in 3 s: a quarter, 10 a second, 90 more in 9 s.
    assert progress_line(30, 120, 3.0, "frames", "a.mp4") == (
        "frames 30/120 25%  10.00 frames/s, 0:09 left  a.mp4"
    )
    # A third of one picture in 6 s: 12 s more.
    assert progress_line(1 / 3, 1, 6.0, "files") == "files 0/1 33%  0.06 files/s, 0:12 left"
    assert progress_line(30, None, 3.0, "frames") == "frames 30  10.00 frames/s"
