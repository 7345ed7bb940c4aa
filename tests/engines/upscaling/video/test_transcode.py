import contextlib
import os
import signal
import subprocess
import sys
import time
import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from swise_deploy.errors import InputError
from swise_engines.upscaling.cli import main
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.colour import (
    ColourCoding,
    coding_of_frame,
    frame_from_rgb,
    rgb_from_frame,
)
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.pixel_formats import choose_pixel_format
from swise_engines.upscaling.video.transcode import upscale_video

av = pytest.importorskip("av", reason="videos need PyAV")

ROOT = Path(__file__).resolve().parents[4]

# 75% colour bars and a skin tone, R'G'B'.
BARS = np.array(
    [
        [191, 191, 191],
        [191, 191, 0],
        [0, 191, 191],
        [0, 191, 0],
        [191, 0, 191],
        [191, 0, 0],
        [0, 0, 191],
        [0, 0, 0],
        [180, 120, 90],
    ],
    np.uint8,
)
BAR_WIDTH = 16
# Kr and Kb of ITU-R BT.601, BT.709 and BT.2020.
LUMA = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def ycbcr(rgb, matrix, *, full):
    """The closed form of ITU-R BT.601, 709 and 2020, 8 bits."""
    kr, kb = LUMA[matrix]
    red, green, blue = (rgb / 255).T
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    if full:
        return np.stack([255 * luma, 128 + 255 * cb, 128 + 255 * cr], axis=1)
    return np.stack([16 + 219 * luma, 128 + 224 * cb, 128 + 224 * cr], axis=1)


def bars_frame(matrix, *, full):
    codes = np.rint(ycbcr(BARS, matrix, full=full)).clip(0, 255).astype(np.uint8)
    planes = codes.T[:, None, :].repeat(32, axis=1).repeat(BAR_WIDTH, axis=2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    return frame


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full", [False, True])
def test_colour_bars_match_their_standard(matrix, full):
    frame = bars_frame(matrix, full=full)
    coding = coding_of_frame(frame)
    assert (coding.matrix, coding.range) == (matrix, 2 if full else 1)
    rgb = rgb_from_frame(frame, coding, is_deep=False, size=(frame.width, frame.height))
    # Rounding to 8-bit Y'CbCr and back costs up to 2 of 255.
    np.testing.assert_allclose(rgb[16, 8::BAR_WIDTH].astype(int), BARS, atol=2)
    back = frame_from_rgb(rgb, coding, "yuv444p").to_ndarray()
    np.testing.assert_allclose(back.astype(int), frame.to_ndarray(), atol=2)


def test_an_unnamed_matrix_follows_from_the_number_of_lines():
    def coding(height):
        return coding_of_frame(av.VideoFrame(64, height, "yuv420p"))

    assert coding(576).matrix == 6
    assert coding(720).matrix == 1
    assert coding(720).range == 1
    assert coding_of_frame(av.VideoFrame(64, 64, "yuvj420p")).range == 2


EIGHT, BOTH = ["yuv420p", "yuv444p"], ["yuv420p", "yuv420p10le", "yuv444p", "yuv444p10le"]


@pytest.mark.parametrize(
    ("source", "formats", "odd", "chosen"),
    [
        ("yuv422p", ["yuv420p", "yuv422p"], False, "yuv422p"),
        ("yuvj420p", EIGHT, False, "yuv420p"),
        ("nv12", BOTH, False, "yuv420p"),  # 12 bits a pixel, 8 a sample
        ("yuv410p", BOTH, False, "yuv420p"),
        ("p010le", BOTH, False, "yuv420p10le"),
        ("yuv420p10le", EIGHT, False, "yuv420p"),
        ("yuv420p", BOTH, True, "yuv444p"),
        ("yuv420p10le", BOTH, True, "yuv444p10le"),
        ("yuv422p", [], False, "yuv422p"),  # an encoder that names none
        ("yuv420p", ["gray"], False, "gray"),
    ],
)
def test_the_nearest_pixel_format_of_the_encoder_is_taken(source, formats, odd, chosen):
    assert choose_pixel_format(source, formats, is_odd=odd) == chosen


def write_video(
    path, *, matrix=5, full=False, pts=range(0, 400, 40), pix_fmt="yuv420p", sound=True, channels=1
):
    """Colour bars that shift by a bar each frame; timestamps in milliseconds; a tone."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"crf": "8", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = BAR_WIDTH * len(BARS), 32, pix_fmt
        video.codec_context.time_base = Fraction(1, 1000)
        context = video.codec_context
        context.colorspace, context.color_range = matrix, 2 if full else 1
        layouts = {1: "mono", 2: "stereo", 6: "5.1"}
        tone = (
            output.add_stream("pcm_s16le", rate=8000, layout=layouts[channels]) if sound else None
        )
        coding = ColourCoding(matrix, 2 if full else 1, 1, 1)
        for number, when in enumerate(pts):
            rgb = np.roll(BARS, number, axis=0)[None].repeat(32, 0).repeat(BAR_WIDTH, 1)
            frame = frame_from_rgb(np.ascontiguousarray(rgb), coding, pix_fmt)
            frame.pts, frame.time_base = when, Fraction(1, 1000)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if tone is not None:
            samples = (np.sin(np.arange(4000 * channels) / 3) * 9000).astype(np.int16)
            audio = av.AudioFrame.from_ndarray(
                samples[None], format="s16", layout=layouts[channels]
            )
            audio.sample_rate, audio.pts = 8000, 0
            output.mux(tone.encode(audio))
            output.mux(tone.encode(None))
    return path


def read_video(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [round(float(f.pts * stream.time_base), 4) for f in frames]
    return frames, times


def sound_of(path):
    with av.open(str(path)) as container:
        return b"".join(bytes(p) for p in container.demux(audio=0) if p.size)


def upscaled(source, target, model, *, crf=17, codec=None):
    options = VideoOptions(codec, crf, None if codec else "ultrafast")
    with Upscaler.open(model) as upscaler:
        return upscale_video(upscaler, source, target, options=options, report=lambda _: None)


def started(source, target, model, *, code=""):
    """The command in a process of its own; `code` runs there first."""
    rooms = [str(ROOT / room) for room in (".", "export", "engines", "bench")]
    run = "import sys; from swise_engines.upscaling.cli import main; sys.exit(main())"
    arguments = [source, "-o", target, "--model", model]
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}\n{run}", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(rooms)},
    )


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full", [False, True])
def test_a_video_keeps_its_colours_and_states_their_coding(tmp_path, small_network, matrix, full):
    source = write_video(tmp_path / "in.mkv", matrix=matrix, full=full)
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0), crf=8)
    assert result.problems == []
    frames, _ = read_video(tmp_path / "out.mkv")
    assert len(frames) == 10
    for number, frame in enumerate(frames):
        assert (frame.width, frame.height) == (2 * BAR_WIDTH * len(BARS), 64)
        coding = coding_of_frame(frame)
        same = {5: (5, 6)}.get(matrix, (matrix,))  # 5 and 6 are the same matrix
        assert coding.matrix in same
        assert coding.range == (2 if full else 1)
        rgb = rgb_from_frame(frame, coding, is_deep=False, size=(frame.width, frame.height))
        bars = rgb[32, BAR_WIDTH :: 2 * BAR_WIDTH].astype(int)
        # Two lossy encodings; a wrong matrix or range is off by 15 and more.
        np.testing.assert_allclose(bars, np.roll(BARS, number, axis=0), atol=7)


def test_sound_and_uneven_timestamps_stay(tmp_path, small_network):
    pts = [0, 20, 60, 120, 125, 300, 420, 500]
    source = write_video(tmp_path / "in.mkv", pts=pts)
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    _, times = read_video(tmp_path / "out.mkv")
    assert times == [p / 1000 for p in pts]
    assert sound_of(tmp_path / "out.mkv") == sound_of(source)
    assert len(sound_of(source)) >= 8000


def test_subtitles_stay(tmp_path, small_network):
    plain = write_video(tmp_path / "plain.mkv", sound=False)
    text = "1\n00:00:00,100 --> 00:00:00,200\nGood evening\n\n"
    (tmp_path / "in.srt").write_text(text)
    with (
        av.open(str(plain)) as video,
        av.open(str(tmp_path / "in.srt")) as subtitles,
        av.open(str(tmp_path / "in.mkv"), "w") as output,
    ):
        inputs = video.streams.video[0], subtitles.streams.subtitles[0]
        copies = [output.add_stream_from_template(stream) for stream in inputs]
        for container, copy in zip((video, subtitles), copies, strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = copy
                    output.mux(packet)
    upscaled(tmp_path / "in.mkv", tmp_path / "out.mkv", small_network(radius=0))
    with av.open(str(tmp_path / "out.mkv")) as container:
        packets = [p for p in container.demux(subtitles=0) if p.size]
        assert [bytes(p) for p in packets] == [b"Good evening"]
        assert float(packets[0].pts * packets[0].time_base) == 0.1


def test_ten_bits_stay_ten_bits(tmp_path, small_network):
    source = write_video(tmp_path / "in.mkv", pix_fmt="yuv420p10le")
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0), crf=8)
    frames, _ = read_video(tmp_path / "out.mkv")
    assert frames[0].format.name == "yuv420p10le"
    coding = coding_of_frame(frames[0])
    rgb = rgb_from_frame(frames[0], coding, is_deep=True, size=(frames[0].width, frames[0].height))
    np.testing.assert_allclose(rgb[32, BAR_WIDTH :: 2 * BAR_WIDTH] / 257, BARS, atol=7)


def test_a_container_that_cannot_hold_the_sound_is_refused_before_the_work(tmp_path, small_network):
    source = write_video(tmp_path / "in.mkv")
    with pytest.raises(InputError, match=r"cannot hold pcm_s16le.*\.mkv"):
        upscaled(source, tmp_path / "out.webm", small_network(), codec="libvpx-vp9")
    assert [p.name for p in tmp_path.glob("*out*")] == []


def test_a_cut_off_video_is_written_as_far_as_it_goes_and_reported(tmp_path, small_network, capsys):
    source = write_video(tmp_path / "in.mkv", pts=range(0, 8_000, 40), sound=False)
    whole, _ = read_video(source)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    model = str(small_network(radius=0))
    code = main(
        [str(cut), "-o", str(tmp_path / "out.mkv"), "--model", model, "--preset", "ultrafast"]
    )
    assert code == 1
    assert "frames end at" in capsys.readouterr().err
    frames, _ = read_video(tmp_path / "out.mkv")
    assert 0.3 * len(whole) < len(frames) < 0.7 * len(whole)


@pytest.mark.parametrize("data", [b"", b"no video", b"\x1aE\xdf\xa3" * 50])
def test_what_is_no_video_is_refused(tmp_path, small_network, data):
    path = tmp_path / "in.mkv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"in\.mkv") as refused:
        upscaled(path, tmp_path / "out.mkv", small_network())
    assert "Errno" not in str(refused.value)


@pytest.mark.parametrize("name", ["out.xyz", "out.png"])
def test_a_name_that_is_no_videos_is_refused_with_one_that_is(tmp_path, small_network, name):
    source = write_video(tmp_path / "in.mkv")
    with pytest.raises(InputError, match=r"\.mkv"):
        upscaled(source, tmp_path / name, small_network())
    assert [path.name for path in tmp_path.glob("*out*")] == []


@pytest.mark.parametrize("crf", ["-1", "64", "best"])
def test_a_rate_factor_that_no_encoder_has_is_a_usage_error(crf, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["in.mkv", "-o", "out.mkv", f"--crf={crf}"])
    assert stop.value.code == 2
    assert f"'{crf}': expected 0 to 63" in capsys.readouterr().err


def test_x265_prints_nothing_of_its_own(tmp_path, small_network, capfd):
    source = write_video(tmp_path / "in.mkv", sound=False)
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0), codec="libx265")
    assert "x265" not in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_leaves_a_playable_file_under_another_name(tmp_path, small_network, number):
    # The command sends the signal itself, at its hundredth frame, as if the user pressed Ctrl-C.
    code = f"""
import os
from swise_engines.upscaling.meter import Meter
tell = Meter.update
def interrupt(self, done, total, label=""):
    if done == 100:
        os.kill(os.getpid(), {number.value})
    tell(self, done, total, label)
Meter.update = interrupt
"""
    source = write_video(tmp_path / "in.mkv", pts=range(0, 40_000, 40))
    out = tmp_path / "out.mkv"
    with started(source, out, small_network(radius=0), code=code) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "out.partial.mkv" in errors
    frames, _ = read_video(tmp_path / "out.partial.mkv")
    assert 100 <= len(frames) <= 110
    assert not (tmp_path / "out.mkv").exists()
    assert list(tmp_path.glob(".out*")) == []


def test_exact_tiles_of_a_video_follow_a_cut_to_another_scene(tmp_path, small_network):
    """A pan, a cut from dark to bright, and another pan: every frame equals its full frame."""
    model = small_network(averages=True)
    rng = np.random.default_rng(0)
    dark, bright = rng.integers(0, 90, (96, 160, 3)), rng.integers(150, 240, (96, 160, 3))
    shown = [np.roll(dark, 2 * i, axis=1) for i in range(3)]
    shown += [np.roll(bright, 2 * i, axis=1) for i in range(3)]
    source, target = tmp_path / "in.mkv", tmp_path / "out.mkv"
    with av.open(str(source), "w") as output:
        stream = output.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "bgr0"
        for number, picture in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(stream.encode(frame.reformat(format="bgr0")))
        output.mux(stream.encode(None))
    with Upscaler.open(model, memory_mib=1, exact=True) as upscaler:
        result = upscale_video(
            upscaler, source, target, options=VideoOptions(), report=lambda _: None
        )
    frames, _ = read_video(target)
    assert result.num_frames == len(frames) == 6
    with Upscaler.open(model, runner="onnxruntime", tile=512) as whole:
        for frame, picture in zip(frames, shown, strict=True):
            expected = whole(picture.astype(np.uint8)).astype(int)
            assert np.abs(frame.to_ndarray(format="rgb24") - expected).max() <= 1
        # A frame that kept the averages of the scene before would be off by a quarter of this.
        assert bright.mean() - dark.mean() > 100


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_raw_sound_whose_speakers_are_not_stated_is_kept(tmp_path, small_network, suffix, channels):
    """Matroska states no layout for raw sound; FFmpeg's MP4 failed after the last frame."""
    source = write_video(tmp_path / "in.mkv", channels=channels)
    target = tmp_path / f"out{suffix}"
    result = upscaled(source, target, small_network(radius=0))
    assert sound_of(target) == sound_of(source)
    with av.open(str(target)) as container:
        assert container.streams.audio[0].channels == channels
    assert any("5.1" in note for note in result.notes) == (suffix == ".mp4" and channels == 6)


def test_raw_sound_of_channels_without_a_usual_layout_is_refused_before_the_first_frame(
    tmp_path, small_network
):
    with wave.open(str(tmp_path / "nine.wav"), "wb") as sound:
        sound.setnchannels(9)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(b"\1\0" * 9 * 4_000)
    picture = write_video(tmp_path / "silent.mkv", sound=False)
    source, target = tmp_path / "in.mkv", tmp_path / "out.mp4"
    with av.open(str(source), "w") as output, contextlib.ExitStack() as inputs:
        paths = [str(picture), str(tmp_path / "nine.wav")]
        opened = [inputs.enter_context(av.open(path)) for path in paths]
        copies = [output.add_stream_from_template(file.streams[0]) for file in opened]
        for copy, container in zip(copies, opened, strict=True):
            for packet in container.demux():
                if packet.dts is not None:
                    packet.stream = copy
                    output.mux(packet)
    with pytest.raises(InputError, match=r"9 channels .*\.mkv"):
        upscaled(source, target, small_network(radius=0))
    assert not target.exists()
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert sound_of(tmp_path / "out.mkv") == sound_of(source)


@pytest.mark.parametrize("suffix", [".ts", ".m2ts"])
def test_what_mpeg_ts_cannot_name_is_refused_or_encoded_anew(tmp_path, small_network, suffix):
    """FFmpeg writes AV1, raw sound and SubRip into MPEG-TS as private data, without a word."""
    target = tmp_path / f"out{suffix}"
    with pytest.raises(InputError, match=r"mpegts files cannot hold pcm_s16le.*\.mkv"):
        upscaled(write_video(tmp_path / "in.mkv"), target, small_network(radius=0))
    silent = write_video(tmp_path / "silent.mkv", sound=False)
    with pytest.raises(InputError, match="mpegts files cannot hold vp9"):
        upscaled(silent, target, small_network(radius=0), codec="libvpx-vp9")
    assert not target.exists()
    modern = tmp_path / "vp9.mkv"
    upscaled(silent, modern, small_network(radius=0), codec="libvpx-vp9")
    result = upscaled(modern, target, small_network(radius=0))
    assert any("vp9 video becomes h264" in note for note in result.notes)
    assert len(read_video(target)[0]) == len(read_video(silent)[0])


def test_an_interruption_before_the_first_frame_leaves_no_file(tmp_path, small_network):
    """A run of seconds is stopped as soon as the output has begun."""
    source = write_video(tmp_path / "in.mkv", pts=range(0, 40_000, 40))
    (tmp_path / "out").mkdir()
    with started(source, tmp_path / "out/sr.mp4", small_network(radius=8)) as process:
        while not list((tmp_path / "out").glob(".*")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    for path in (tmp_path / "out").iterdir():  # a frame may have been finished by then
        assert path.name == "sr.partial.mp4"
        assert len(read_video(path)[0]) > 0
