"""Short videos that hold what films and recordings hold."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def make_video() -> Callable[..., Path]:
    """Write a clip of a moving slope; `setup` adds streams, and gives what finishes them."""
    av = pytest.importorskip("av", reason="videos need PyAV")

    def make(
        path: Path,
        *,
        size: tuple[int, int] = (64, 48),
        num_frames: int = 10,
        rate: int = 10,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        options: dict[str, str] | None = None,
        picture: Any = None,
        container: str | None = None,
        first_pts: int = 0,
        setup: Callable[[Any, Any], Any] | None = None,
    ) -> Path:
        width, height = size
        slope = np.zeros((height, width, 3), np.uint8)
        slope[:, :, 0] = np.linspace(30, 220, width)
        slope[:, :, 1] = np.linspace(220, 30, height)[:, None]
        with av.open(str(path), "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate, options=options or {})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            finish = setup(output, stream) if setup else None
            for index in range(num_frames):
                shown = np.roll(slope, 2 * index, axis=1) if picture is None else picture
                form = "rgba" if shown.shape[2] == 4 else "rgb24"
                frame = av.VideoFrame.from_ndarray(shown, format=form).reformat(format=pix_fmt)
                frame.pts, frame.time_base = first_pts + index, Fraction(1, rate)
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
            if finish:
                finish(output)
        return path

    return make


@pytest.fixture
def add_tone() -> Callable[..., Any]:
    """Add a tone of some seconds to a container; gives what encodes it."""
    av = pytest.importorskip("av", reason="videos need PyAV")

    def add(
        output: Any, seconds: float, codec: str = "aac", first_pts: int = 0, rate: int = 44_100
    ) -> Any:
        stream = output.add_stream(codec, rate=rate)
        stream.layout = "stereo"

        def finish(output: Any) -> None:
            wave = (np.sin(np.arange(int(seconds * rate)) / 16) * 8000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(
                np.repeat(wave, 2)[None], format="s16", layout="stereo"
            )
            frame.sample_rate, frame.pts = rate, first_pts
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))

        return finish

    return add


@pytest.fixture
def add_subtitle_file() -> Callable[..., Any]:
    """Add the subtitles of a file; gives what copies them."""
    av = pytest.importorskip("av", reason="videos need PyAV")

    def add(output: Any, path: Path) -> Any:
        source = av.open(str(path))
        stream = output.add_stream_from_template(source.streams.subtitles[0])

        def finish(output: Any) -> None:
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
            source.close()

        return finish

    return add


@pytest.fixture
def add_srt(add_subtitle_file: Callable[..., Any]) -> Callable[..., Any]:
    """Add SubRip subtitles, (start, end, text) in seconds; gives what copies them."""

    def clock(seconds: float) -> str:
        return f"00:00:{seconds:06.3f}".replace(".", ",")

    def add(output: Any, folder: Path, lines: list[tuple[float, float, str]]) -> Any:
        path = folder / "lines.srt"
        path.write_text(
            "\n".join(
                f"{i}\n{clock(start)} --> {clock(end)}\n{text}\n"
                for i, (start, end, text) in enumerate(lines, 1)
            )
        )
        return add_subtitle_file(output, path)

    return add
