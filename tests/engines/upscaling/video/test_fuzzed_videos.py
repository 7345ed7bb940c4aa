"""Damaged video files: each is upscaled as far as it goes or refused, and nothing else."""

import numpy as np
import pytest

from swise_deploy.errors import SwiseError
from swise_engines.upscaling.video.reader import Shot, VideoReader

av = pytest.importorskip("av", reason="videos need PyAV")

NUM_DAMAGED = 80  # of each container


def damaged(data, rng):
    bad = bytearray(data)
    match rng.integers(3):
        case 0:
            return bytes(bad[: rng.integers(len(bad))])
        case 1:
            for _ in range(rng.integers(1, 30)):
                bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        case 2:
            start = rng.integers(len(bad))
            bad[start : start + rng.integers(64)] = rng.bytes(rng.integers(64))
    return bytes(bad)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".avi", ".flv"])
def test_damaged_files_are_read_or_refused(tmp_path, make_video, add_tone, suffix):
    sound = "libmp3lame" if suffix == ".avi" else "aac"
    if sound not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {sound}")
    whole = make_video(
        tmp_path / f"whole{suffix}",
        num_frames=6,
        options={"bf": "0"},
        setup=lambda out, _: add_tone(out, 1, sound),
    ).read_bytes()
    rng = np.random.default_rng(3)
    num_frames = num_refused = 0
    for index in range(NUM_DAMAGED):
        path = tmp_path / f"{index}{suffix}"
        path.write_bytes(damaged(whole, rng))
        try:
            with VideoReader(path) as reader:
                num_frames += sum(isinstance(event, Shot) for event in reader.events())
        except SwiseError:
            num_refused += 1
    assert num_frames > NUM_DAMAGED
    assert num_refused > 0
