"""What a video file holds besides plain frames, read back from the result by FFmpeg."""

import io
import os
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, features

from swise_deploy.errors import InputError
from swise_engines.upscaling.cli import main
from swise_engines.upscaling.pictures.codecs import decode_picture
from swise_engines.upscaling.upscaler import Upscaler
from swise_engines.upscaling.video.options import VideoOptions
from swise_engines.upscaling.video.transcode import upscale_video

av = pytest.importorskip("av", reason="videos need PyAV")


def upscaled(source, target, model, codec=None, crf=10):
    options = VideoOptions(codec, crf)
    with Upscaler.open(model, runner="onnxruntime") as upscaler:
        return upscale_video(upscaler, source, target, options=options, report=lambda _: None)


def frames_of(path):
    with av.open(f"file:{path}") as container:
        return list(container.decode(video=0))


def stream_facts(path, kind):
    with av.open(str(path)) as container:
        return [
            (stream.codec_context.name, dict(stream.metadata), stream.disposition)
            for stream in container.streams
            if stream.type == kind
        ]


def transparency(path):
    """Alpha of the first frame of a WebM video, along its middle, by the decoder that reads it."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        assert "1" in {stream.metadata.get("alpha_mode"), stream.metadata.get("ALPHA_MODE")}
        name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}[stream.codec_context.codec.canonical_name]
        decoder = av.VideoCodecContext.create(name, "r")
        shown = next(frame for packet in container.demux() for frame in decoder.decode(packet))
        return shown.to_ndarray(format="rgba")[shown.height // 2, :, 3]


def veiled(width=64, height=48):
    """A picture from fully transparent, on the left, to opaque."""
    picture = np.full((height, width, 4), (200, 120, 40, 0), np.uint8)
    picture[:, :, 3] = np.linspace(0, 255, width)
    return picture


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_the_transparency_of_vp8_and_vp9_stays(tmp_path, small_network, make_video, codec, suffix):
    source = make_video(
        tmp_path / f"in{suffix}",
        codec=codec,
        pix_fmt="yuva420p",
        picture=veiled(),
        num_frames=2,
        options={"auto-alt-ref": "0", "b": "2M"},
        setup=lambda _, video: video.metadata.update(alpha_mode="1"),
    )
    np.testing.assert_allclose(transparency(source), veiled()[0, :, 3], atol=4)
    result = upscaled(source, tmp_path / f"out{suffix}", small_network(radius=0))
    found = transparency(tmp_path / f"out{suffix}")
    np.testing.assert_allclose(found, veiled()[0, :, 3].repeat(2), atol=6)
    assert result.notes == []


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "target", "expected"),
    [
        ("png", "rgba", "out.mov", "png"),
        ("png", "rgba", "out.mkv", "ffv1"),
        ("png", "rgba", "out.mp4", "h264"),
        ("prores_ks", "yuva444p10le", "out.webm", "vp9"),
        ("libvpx-vp9", "yuva420p", "out.mov", "prores"),
    ],
)
def test_transparency_stays_in_a_codec_that_container_and_players_know(
    tmp_path, small_network, make_video, *, codec, pix_fmt, target, expected
):
    source = make_video(
        tmp_path / ("in.webm" if codec == "libvpx-vp9" else "in.mov"),
        codec=codec,
        pix_fmt=pix_fmt,
        picture=veiled(),
        num_frames=2,
        setup=lambda _, video: video.metadata.update(alpha_mode="1"),
    )
    result = upscaled(source, tmp_path / target, small_network(radius=0))
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == expected
    is_lost = any("transparency is lost" in note for note in result.notes)
    assert is_lost is (expected == "h264")
    if expected == "vp9":
        found = transparency(tmp_path / target)
    else:
        shown = frames_of(tmp_path / target)[0].to_ndarray(format="rgba")
        found = shown[48, :, 3]
    wanted = np.full(128, 255) if is_lost else veiled()[0, :, 3].repeat(2)
    np.testing.assert_allclose(found, wanted, atol=6)


@pytest.mark.parametrize(
    ("source", "codec", "target"),
    [
        ("in.webm", "libvpx-vp9", "out.mov"),
        ("in.mkv", "libsvtav1", "out.mov"),
        ("in.mp4", "libx265", "out.flv"),
    ],
)
def test_a_codec_that_a_container_does_not_name_becomes_h264(
    tmp_path, small_network, make_video, *, source, codec, target
):
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = make_video(tmp_path / source, codec=codec, num_frames=3)
    result = upscaled(path, tmp_path / target, small_network(radius=0))
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == "h264"
    assert any("becomes h264" in note for note in result.notes)
    assert len(frames_of(tmp_path / target)) == 3


def test_a_video_for_ogg_becomes_vp8_with_its_sound(tmp_path, small_network, make_video, add_tone):
    if not {"libvpx", "libopus"} <= set(av.codecs_available):
        pytest.skip("this FFmpeg has no libvpx or libopus")
    source = make_video(
        tmp_path / "in.mkv", setup=lambda out, _: add_tone(out, 1, "libopus", rate=48_000)
    )
    result = upscaled(source, tmp_path / "out.ogv", small_network(radius=0))
    assert result.notes == ["h264 video becomes vp8"]
    shown = frames_of(tmp_path / "out.ogv")
    assert [round(frame.time * 10) for frame in shown] == list(range(10))
    assert [name for name, *_ in stream_facts(tmp_path / "out.ogv", "audio")] == ["opus"]


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("kind", ["chapters", "timecode"])
def test_a_track_of_chapters_or_time_codes_is_made_anew_without_a_word(
    tmp_path, small_network, make_video, suffix, kind
):
    def enrich(out, video):
        if kind == "timecode":
            video.metadata["timecode"] = "01:00:00:00"
            return
        chapter = {"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000)}
        out.set_chapters([{**chapter, "metadata": {"title": "One"}}])

    source = make_video(tmp_path / f"in{suffix}", rate=25, setup=enrich)
    result = upscaled(source, tmp_path / f"out{suffix}", small_network(radius=0))
    assert result.notes == []
    for path in (source, tmp_path / f"out{suffix}"):
        with av.open(str(path)) as container:
            assert [stream.type for stream in container.streams] == ["video", "data"]
            if kind == "timecode":
                assert container.streams.video[0].metadata["timecode"] == "01:00:00:00"
            else:
                assert container.chapters()[0]["metadata"]["title"] == "One"


def test_uneven_frames_with_reordering_last_as_long_as_in_the_source(tmp_path, small_network):
    times = [0, 1, 2, 5, 6, 7, 11, 12, 13, 15]
    with av.open(str(tmp_path / "in.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for time in times:
            frame = av.VideoFrame.from_ndarray(
                np.full((32, 32, 3), 10 * time, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = time, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    upscaled(tmp_path / "in.mp4", tmp_path / "out.mp4", small_network(radius=0))
    shown = frames_of(tmp_path / "out.mp4")
    assert [round(frame.time * 10) for frame in shown] == times
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = container.streams
        # The last frame is shown from 1.5 s on, as long as its file says.
        last_s = float(frames_of(tmp_path / "in.mp4")[-1].duration * Fraction(1, 10_240))
        assert float(stream.duration * stream.time_base) == pytest.approx(1.5 + last_s, abs=0.02)


@pytest.mark.parametrize("seconds", [3, 6])
def test_sound_that_outlasts_the_picture_is_no_damage(
    tmp_path, small_network, make_video, add_tone, seconds
):
    source = make_video(tmp_path / "in.mp4", setup=lambda out, _: add_tone(out, seconds))
    result = upscaled(source, tmp_path / "out.mp4", small_network(radius=0))
    assert result.problems == []
    assert len(frames_of(tmp_path / "out.mp4")) == 10


def test_subtitles_that_outlast_the_picture_are_no_damage(
    tmp_path, small_network, make_video, add_srt
):
    lines = [(0, 1, "hi"), (1, 8, "end")]
    source = make_video(tmp_path / "in.mkv", setup=lambda out, _: add_srt(out, tmp_path, lines))
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert result.problems == []
    assert len(frames_of(tmp_path / "out.mkv")) == 10


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", "gif"), ("PNG", "apng"), ("AVIF", "avif")])
def test_an_animation_becomes_a_video_of_all_its_frames(tmp_path, small_network, kind, suffix):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    first, *others = (Image.new("RGB", (32, 32), (40 * i, 90, 20)) for i in range(4))
    source = tmp_path / f"a.{suffix}"
    first.save(source, kind, save_all=True, append_images=others, duration=100)
    with pytest.raises(InputError, match=r"4 frames.*alone with a video"):
        decode_picture(source.read_bytes())
    target = tmp_path / "out.mkv"
    assert main([str(source), "-o", str(target), "--model", str(small_network(radius=0))]) == 0
    shown = [frame.to_ndarray(format="rgb24")[32, 32, 0] for frame in frames_of(target)]
    np.testing.assert_allclose(np.array(shown, int), [0, 40, 80, 120], atol=5)


def test_a_last_frame_that_stays_stays(tmp_path, small_network):
    with av.open(str(tmp_path / "in.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        packets = []
        for index in range(3):
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        packets[-1].duration = int(5 / packets[-1].time_base)
        output.mux(packets)
    result = upscaled(tmp_path / "in.mp4", tmp_path / "out.mp4", small_network(radius=0))
    assert result.problems == []
    for name in ("in.mp4", "out.mp4"):
        with av.open(str(tmp_path / name)) as container:
            stream = container.streams.video[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(5.2, abs=0.01)


def test_a_recording_that_begins_at_any_time_begins_at_0(
    tmp_path, small_network, make_video, add_tone
):
    source = make_video(
        tmp_path / "in.ts",
        first_pts=40_000,
        setup=lambda out, _: add_tone(out, 1, first_pts=4000 * 44_100),
    )
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert result.problems == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        starts = [
            float(packet.pts * packet.time_base)
            for packet in container.demux()
            if packet.pts is not None
        ]
    assert min(starts) == pytest.approx(0, abs=0.03)
    assert max(starts) < 1.2


@pytest.mark.parametrize("suffix", [".webm", ".mkv", ".mp4"])
def test_av1_stays_av1(tmp_path, small_network, make_video, suffix):
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg has no AV1 encoder")
    source = make_video(
        tmp_path / f"in{suffix}", codec="libsvtav1", pix_fmt="yuv420p10le", num_frames=5
    )
    upscaled(source, tmp_path / f"out{suffix}", small_network(radius=0))
    (frame, *_) = frames_of(tmp_path / f"out{suffix}")
    assert frame.format.name == "yuv420p10le"
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        assert container.streams.video[0].codec_context.codec.canonical_name == "av1"


def test_settings_that_an_encoder_refuses_are_named(tmp_path, small_network, make_video):
    source = make_video(tmp_path / "in.mkv", num_frames=2)
    options = VideoOptions("libx264", 17, "swift")
    with (
        Upscaler.open(small_network(radius=0), runner="onnxruntime") as upscaler,
        pytest.raises(InputError, match=r"libx264.*preset=swift"),
    ):
        upscale_video(
            upscaler, source, tmp_path / "out.mkv", options=options, report=lambda _: None
        )
    assert not list(tmp_path.glob("*out*"))


def test_chapters_fonts_flags_titles_and_languages_stay(
    tmp_path, small_network, make_video, add_tone, add_srt
):
    flags = av.stream.Disposition
    parts = [("Opening", 0, 500), ("Ending", 500, 1000)]

    def enrich(out, video):
        video.metadata.update(title="Main picture", language="jpn")
        ends = [add_tone(out, 1), add_tone(out, 1), add_srt(out, tmp_path, [(0, 1, "hi")])]
        first, second = (s for s in out.streams if s.type == "audio")
        first.metadata["language"], second.metadata["language"] = "eng", "jpn"
        first.disposition, second.disposition = 0, flags.default
        (text,) = (s for s in out.streams if s.type == "subtitle")
        text.disposition = flags.forced | flags.default
        out.add_attachment("font.ttf", "application/x-truetype-font", bytes(range(200)))
        out.metadata["title"] = "My film"
        out.set_chapters(
            [
                {
                    "id": i,
                    "start": a,
                    "end": b,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for i, (title, a, b) in enumerate(parts)
            ]
        )
        return lambda out: [end(out) for end in ends]

    source = make_video(tmp_path / "in.mkv", setup=enrich)
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert result.notes == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        found = [
            (c["metadata"]["title"], float(c["start"] * c["time_base"]))
            for c in container.chapters()
        ]
        assert found == [("Opening", 0), ("Ending", 0.5)]
        (font,) = container.streams.attachments
        assert bytes(font.data) == bytes(range(200))
        assert container.metadata["title"] == "My film"
        (video,) = container.streams.video
        assert video.metadata["title"] == "Main picture"
        assert video.metadata["language"] == "jpn"
        sounds = [(s.metadata["language"], s.disposition) for s in container.streams.audio]
        assert sounds == [("eng", 0), ("jpn", flags.default)]
        assert container.streams.subtitles[0].disposition == flags.forced | flags.default


def test_what_a_container_cannot_hold_besides_sound_is_named(
    tmp_path, small_network, make_video, caplog
):
    def enrich(out, _):
        out.add_attachment("font.ttf", "application/x-truetype-font", bytes(20))

    source = make_video(tmp_path / "in.mkv", setup=enrich)
    result = upscaled(source, tmp_path / "out.mp4", small_network(radius=0))
    assert any("1 attached files" in note for note in result.notes)
    assert "1 attached files" in caplog.text
    assert len(frames_of(tmp_path / "out.mp4")) == 10


def test_a_sound_of_an_unknown_codec_is_named_and_left_out(
    tmp_path, small_network, make_video, add_tone
):
    source = make_video(tmp_path / "in.mkv", setup=lambda out, _: add_tone(out, 1))
    data = source.read_bytes()
    assert data.count(b"A_AAC") == 1
    source.write_bytes(data.replace(b"A_AAC", b"A_XYZ"))
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert any("stream 1 (audio" in note for note in result.notes)
    assert len(frames_of(tmp_path / "out.mkv")) == 10
    assert stream_facts(tmp_path / "out.mkv", "audio") == []


@pytest.mark.parametrize("target", ["out.mp4", "out.mkv"])
def test_a_cover_stays_a_cover(tmp_path, small_network, make_video, target):
    image = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(image, "JPEG")

    def enrich(out, _):
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic

        def finish(out):
            packet = av.Packet(image.getvalue())
            packet.stream, packet.pts, packet.dts = cover, 0, 0
            packet.time_base = Fraction(1, 1)
            out.mux(packet)

        return finish

    source = make_video(tmp_path / "in.mp4", setup=enrich)
    upscaled(source, tmp_path / target, small_network(radius=0))
    with av.open(str(tmp_path / target)) as container:
        covers = [
            s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic
        ]
        assert len(covers) == 1
        if target == "out.mkv":  # the name that Matroska gives to covers
            assert covers[0].metadata["filename"] == "cover.jpg"
    assert len(frames_of(tmp_path / target)) == 10


@pytest.mark.parametrize(
    ("source", "target", "video", "sound"),
    [
        ("in.ts", "out.ts", "libx264", "aac"),
        ("in.mpg", "out.mpg", "mpeg2video", "mp2"),
        ("in.vob", "out.vob", "mpeg2video", "mp2"),
        ("in.mts", "out.m2ts", "libx264", "aac"),
        ("in.flv", "out.flv", "libx264", "aac"),
        ("in.3gp", "out.3gp", "libx264", "aac"),
        ("in.mts", "out.mp4", "libx264", "aac"),
        ("in.avi", "out.avi", "mpeg4", "libmp3lame"),
        ("in.mkv", "out.avi", "libx264", "libmp3lame"),
        ("in.wmv", "out.wmv", "libx264", "aac"),
        ("in.mxf", "out.mxf", "mpeg2video", "pcm_s16le"),
        ("in.nut", "out.nut", "libx264", "aac"),
    ],
)
def test_containers_are_read_and_written(
    tmp_path, small_network, make_video, add_tone, *, source, target, video, sound
):
    if not {video, sound} <= set(av.codecs_available):
        pytest.skip(f"this FFmpeg has no {video} or {sound}")
    muxers = {".mts": "mpegts", ".vob": "vob"}
    path = tmp_path / source

    def setup(out, _):
        return None if path.suffix == ".mxf" else add_tone(out, 1, sound)

    make_video(
        path,
        codec=video,
        rate=25,
        num_frames=25,
        options={"bf": "0"},
        container=muxers.get(path.suffix),
        setup=setup,
    )
    result = upscaled(path, tmp_path / target, small_network(radius=0))
    assert result.problems == []
    frames = frames_of(tmp_path / target)
    assert len(frames) == 25
    assert (frames[0].width, frames[0].height) == (128, 96)
    before, after = (
        [float(f.pts * f.time_base) for f in shown if f.pts is not None]
        for shown in (frames_of(path), frames)
    )
    # An MPEG program stream states the time of some frames only, an AVI of none.
    if len(after) == 25 and path.suffix != ".avi":
        np.testing.assert_allclose(np.diff(after), np.diff(before), atol=0.0011)
    if path.suffix != ".mxf":
        assert len(stream_facts(tmp_path / target, "audio")) == 1


def presentation_graphics(path):
    """Write Blu-ray subtitles (PGS): a grey bar of 8x2 pixels, shown twice."""

    def segment(pts, kind, data):
        return b"PG" + struct.pack(">IIBH", pts, 0, kind, len(data)) + data

    rle = bytes([*[1] * 8, 0, 0, *[1] * 8, 0, 0])
    place = struct.pack(">HBBHH", 0, 0, 0, 0, 0)
    content = {
        0x16: struct.pack(">HHBHBBBB", 64, 48, 0x10, 1, 0x80, 0, 0, 1) + place,
        0x17: struct.pack(">BBHHHH", 1, 0, 0, 0, 8, 2),
        0x14: bytes([0, 0, 1, 235, 128, 128, 255]),
        0x15: struct.pack(">HBB", 0, 0, 0xC0)
        + struct.pack(">I", len(rle) + 4)[1:]
        + struct.pack(">HH", 8, 2)
        + rle,
        0x80: b"",
    }
    shown = [segment(pts, k, d) for pts in (9000, 45000) for k, d in content.items()]
    path.write_bytes(b"".join(shown))
    return path


@pytest.fixture
def blu_ray(tmp_path, make_video, add_tone, add_subtitle_file):
    """A recording with the sound and the subtitles of a Blu-ray."""

    def setup(out, _):
        finish_tone = add_tone(out, 1, "pcm_bluray", rate=48_000)
        finish_lines = add_subtitle_file(out, presentation_graphics(tmp_path / "lines.sup"))

        def finish(out):
            finish_tone(out)
            finish_lines(out)

        return finish

    return make_video(tmp_path / "in.m2ts", options={"bf": "0"}, setup=setup)


@pytest.mark.parametrize("suffix", [".m2ts", ".mts"])
def test_sound_and_subtitles_of_a_blu_ray_stay_in_its_kind_of_file(
    tmp_path, small_network, blu_ray, suffix
):
    target = tmp_path / f"out{suffix}"
    result = upscaled(blu_ray, target, small_network(radius=0))
    assert result.notes == []
    assert [name for name, *_ in stream_facts(target, "audio")] == ["pcm_bluray"]
    assert [name for name, *_ in stream_facts(target, "subtitle")] == ["pgssub"]


def test_sound_of_a_blu_ray_is_refused_in_a_broadcast_file_with_one_that_holds_it(
    tmp_path, small_network, blu_ray
):
    """FFmpeg writes it into .ts too, as data that no program reads."""
    with pytest.raises(InputError, match="pcm_bluray") as refused:
        upscaled(blu_ray, tmp_path / "out.ts", small_network(radius=0))
    assert "convert the sound first" in str(refused.value)
    assert not (tmp_path / "out.ts").exists()


def test_subtitles_of_a_blu_ray_are_left_out_of_a_broadcast_file_and_named(
    tmp_path, small_network, make_video
):
    def setup(out, _):
        source = av.open(str(presentation_graphics(tmp_path / "lines.sup")))
        stream = out.add_stream_from_template(source.streams.subtitles[0])

        def finish(out):
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
            source.close()

        return finish

    source = make_video(tmp_path / "in.mkv", setup=setup)
    result = upscaled(source, tmp_path / "out.ts", small_network(radius=0))
    assert any("hdmv_pgs_subtitle" in n or "pgssub" in n for n in result.notes)
    with av.open(str(tmp_path / "out.ts")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize(
    ("sound", "source", "target"),
    [
        ("pcm_alaw", "in.mov", "out.mkv"),
        ("pcm_alaw", "in.mov", "out.mp4"),
        ("pcm_s16le", "in.mkv", "out.ts"),
        ("pcm_mulaw", "in.avi", "out.flv"),  # FFmpeg 8 aborts the process
        ("ac3", "in.mkv", "out.3gp"),
        ("libmp3lame", "in.avi", "out.webm"),
        ("aac", "in.mp4", "out.webm"),
    ],
)
def test_a_container_that_is_advised_holds_the_sound(
    tmp_path, small_network, make_video, add_tone, *, sound, source, target
):
    """The message names a suffix, and a run with that suffix keeps the sound."""
    path = make_video(tmp_path / source, setup=lambda out, _: add_tone(out, 1, sound))
    network = small_network(radius=0)
    try:
        upscaled(path, tmp_path / target, network)
    except InputError as error:
        message = str(error)
    else:
        pytest.skip(f"this FFmpeg holds {sound} in {target}")
    advised = message.partition("Use ")[2].partition(" ")[0]
    assert advised.startswith(".")
    assert advised != (tmp_path / target).suffix
    upscaled(path, tmp_path / f"advised{advised}", network)
    assert len(stream_facts(tmp_path / f"advised{advised}", "audio")) == 1


def mov_text(out, text):
    stream = out.add_stream("mov_text")
    stream.codec_context.subtitle_header = b"[Events]\n"
    stream.time_base = Fraction(1, 1000)

    def finish(out):
        packet = av.Packet(struct.pack(">H", len(text)) + text)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = 0
        packet.duration = 900
        out.mux(packet)

    return finish


def test_subtitles_of_an_mp4_become_subrip_in_matroska_and_back(
    tmp_path, small_network, make_video
):
    source = make_video(tmp_path / "in.mp4", setup=lambda out, _: mov_text(out, b"Good evening"))
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    upscaled(tmp_path / "out.mkv", tmp_path / "back.mp4", small_network(radius=0))
    for name, codec, payload in (
        ("out.mkv", "subrip", b"Good evening"),
        ("back.mp4", "mov_text", struct.pack(">H", 12) + b"Good evening"),
    ):
        with av.open(str(tmp_path / name)) as container:
            (stream,) = container.streams.subtitles
            assert stream.codec_context.codec.canonical_name == codec
            packets = [p for p in container.demux(stream) if p.size > 2]
            assert [bytes(p) for p in packets] == [payload]
            assert float(packets[0].duration * packets[0].time_base) == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["Re:Zero 01.mp4", "http:a.mp4", "concat:a|b.mkv", "50%d.mp4"])
def test_a_colon_in_a_name_is_no_protocol(tmp_path, small_network, make_video, name, monkeypatch):
    make_video(tmp_path / "plain.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    model = str(small_network(radius=0))
    (tmp_path / "out").mkdir()
    arguments = ["--model", model, "--runner", "onnxruntime", "--preset", "ultrafast", "-q"]
    assert main([name, "-o", f"out/{name}", *arguments]) == 0
    assert len(frames_of(tmp_path / "out" / name)) == 10


def with_matrix(source, target, matrix):
    """Copy an MP4 with another display matrix in its first track header."""
    data = bytearray(source.read_bytes())
    header = data.find(b"tkhd")
    place = header + 8 + (32 if data[header + 4] else 20) + 16
    a, b, c, d = (value * 65_536 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


COLOURS = {"R": (200, 30, 30), "G": (30, 200, 30), "B": (30, 30, 200), "Y": (200, 200, 30)}
# The quarters RG/BY as (x, y) -> (a*x + c*y, b*x + d*y) shows them (ISO/IEC 14496-12, 8.3.2).
SHOWN = {
    (1, 0, 0, 1): "RGBY",
    (-1, 0, 0, 1): "GRYB",
    (1, 0, 0, -1): "BYRG",
    (-1, 0, 0, -1): "YBGR",
    (0, 1, 1, 0): "RBGY",
    (0, 1, -1, 0): "BRYG",
    (0, -1, 1, 0): "GYRB",
    (0, -1, -1, 0): "YGBR",
}


@pytest.mark.parametrize("matrix", SHOWN)
def test_turned_and_mirrored_videos_are_upright(tmp_path, small_network, make_video, matrix):
    quarters = np.zeros((48, 64, 3), np.uint8)
    for index, colour in enumerate(COLOURS.values()):
        rows, columns = slice(24 * (index // 2), None), slice(32 * (index % 2), None)
        quarters[rows, columns] = colour

    def oblong(_, stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    plain = make_video(
        tmp_path / "plain.mp4",
        num_frames=2,
        pix_fmt="yuv444p",
        options={"crf": "5"},
        picture=quarters,
        setup=oblong,
    )
    source = with_matrix(plain, tmp_path / "in.mp4", matrix)
    upscaled(source, tmp_path / "out.mp4", small_network(radius=0))
    frame = frames_of(tmp_path / "out.mp4")[0]
    rgb = frame.to_ndarray(format="rgb24").astype(int)
    height, width = rgb.shape[:2]
    for index, letter in enumerate(SHOWN[matrix]):
        pixel = rgb[height * (1 + 2 * (index // 2)) // 4, width * (1 + 2 * (index % 2)) // 4]
        np.testing.assert_allclose(pixel, COLOURS[letter], atol=6)
    turned = matrix[0] == 0
    assert (width, height) == ((96, 128) if turned else (128, 96))
    with av.open(str(tmp_path / "out.mp4")) as container:
        shape = container.streams.video[0].sample_aspect_ratio
    assert shape == (Fraction(3, 4) if turned else Fraction(4, 3))


HDR = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1):"


@pytest.mark.parametrize("encoder", ["libx265", "libx264", "libsvtav1"])
def test_hdr10_metadata_stay(tmp_path, small_network, make_video, encoder):
    if not {"libx265", encoder} <= set(av.codecs_available):
        pytest.skip(f"this FFmpeg has no {encoder}")

    def tag(_, stream):
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9

    source = make_video(
        tmp_path / "in.mkv",
        num_frames=3,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": f"log-level=error:hdr10=1:{HDR}max-cll=1000,400:chromaloc=2"},
        setup=tag,
    )
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0), codec=encoder)
    frame = frames_of(tmp_path / "out.mkv")[0]
    found = {data.type.name: bytes(data) for data in frame.side_data}
    numbers = struct.unpack("=20iii", found["MASTERING_DISPLAY_METADATA"])
    values = [n / d for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
    red, green, blue, white = (values[i : i + 2] for i in (0, 2, 4, 6))
    # Fixed point of AV1: 16 bits of fraction for chromaticity, 8 and 14 for luminance.
    np.testing.assert_allclose(red, (0.68, 0.32), atol=2e-5)
    np.testing.assert_allclose(green, (0.265, 0.69), atol=2e-5)
    np.testing.assert_allclose(blue, (0.15, 0.06), atol=2e-5)
    np.testing.assert_allclose(white, (0.3127, 0.329), atol=2e-5)
    np.testing.assert_allclose(values[8:], (0.0001, 1000), rtol=0.25)
    assert struct.unpack("=II", found["CONTENT_LIGHT_LEVEL"]) == (1000, 400)
    assert (int(frame.color_trc), int(frame.color_primaries), int(frame.colorspace)) == (16, 9, 9)


def test_hdr10_metadata_that_an_encoder_does_not_write_are_named(
    tmp_path, small_network, make_video
):
    if "libx265" not in av.codecs_available:
        pytest.skip("this FFmpeg has no libx265")
    source = make_video(
        tmp_path / "in.mkv",
        num_frames=2,
        codec="libx265",
        pix_fmt="yuv420p10le",
        options={"x265-params": f"log-level=error:hdr10=1:{HDR}max-cll=1000,400"},
    )
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0), codec="ffv1")
    assert any("HDR10" in note and "ffv1" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "encoder", "pix_fmt", "codec", "result"),
    [
        ("in.mov", "prores_ks", "yuva444p10le", "prores_ks", "yuva444p12le"),
        ("in.mov", "prores_ks", "yuva444p10le", "libx264", "yuv444p10le"),
        ("in.mov", "rawvideo", "uyvy422", None, "yuv422p"),
        ("in.mkv", "ffv1", "bgr0", "libx264", "yuv444p"),
        ("in.mkv", "ffv1", "gbrp10le", "libx265", "gbrp10le"),
        ("in.mkv", "ffv1", "yuv422p10le", "libx265", "yuv422p10le"),
        ("in.mp4", "libx264", "yuv444p", None, "yuv444p"),
        ("in.mkv", "ffv1", "yuva420p", "libvpx-vp9", "yuv420p"),
    ],
)
def test_chroma_depth_and_transparency_stay_where_the_encoder_can(
    tmp_path, small_network, make_video, *, name, encoder, pix_fmt, codec, result
):
    if not {encoder, codec or encoder} <= set(av.codecs_available):
        pytest.skip("this FFmpeg has no such encoder")
    veiled = np.full((48, 64, 4), (200, 120, 40, 128), np.uint8)
    picture = veiled if "a4" in pix_fmt else veiled[:, :, :3].copy()
    source = make_video(
        tmp_path / name, codec=encoder, pix_fmt=pix_fmt, picture=picture, num_frames=2
    )
    target = tmp_path / f"out{source.suffix}"
    found = upscaled(source, target, small_network(radius=0), codec=codec)
    frame = frames_of(target)[0]
    assert frame.format.name == result  # FFmpeg's own VP9 reader drops the alpha that is there
    rgb = frame.to_ndarray(format="rgb24").astype(int)
    np.testing.assert_allclose(rgb[40, 60], (200, 120, 40), atol=6)
    loses_alpha = "a4" in pix_fmt and codec == "libx264"
    assert any("transparency is lost" in note for note in found.notes) is loses_alpha
    if codec == "prores_ks":
        alpha = int(frame.to_ndarray(format="rgba")[40, 60, 3])
        assert alpha == pytest.approx(128, abs=2)


def test_frames_before_time_0_stay_in_step_with_the_sound(
    tmp_path, small_network, make_video, add_tone
):
    """Matroska whose video and sound begin at -0.4 s: FFmpeg gives those frames no time."""
    plain = make_video(
        tmp_path / "plain.mkv", options={"bf": "0"}, setup=lambda out, _: add_tone(out, 1, "flac")
    )
    source = tmp_path / "in.mkv"
    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(plain)) as held, av.open(str(source), "w", options=options) as output:
        copies = [output.add_stream_from_template(stream) for stream in held.streams]
        for packet in held.demux():
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 400, packet.dts - 400
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    assert any(frame.pts is None for frame in frames_of(source))
    result = upscaled(source, tmp_path / "out.mkv", small_network(radius=0))
    assert result.problems == []
    with av.open(str(tmp_path / "out.mkv")) as container:
        first: dict[str, float] = {}
        for packet in container.demux():
            if packet.pts is not None:
                first.setdefault(packet.stream.type, float(packet.pts * packet.time_base))
    assert first["video"] == pytest.approx(first["audio"], abs=0.01)
    times = [float(f.pts * f.time_base) for f in frames_of(tmp_path / "out.mkv")]
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.0011)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_two_frames_of_hevc_have_times_of_decoding(tmp_path, small_network, make_video, suffix):
    """The encoder left the second's to chance: about one run in 20 failed at its end."""
    if "libx265" not in av.codecs_available:
        pytest.skip("this FFmpeg has no such encoder")
    source = make_video(tmp_path / "in.mkv", codec="ffv1", pix_fmt="gbrp10le", num_frames=2)
    with Upscaler.open(small_network(radius=0), runner="onnxruntime") as upscaler:
        for number in range(20):
            target = tmp_path / f"out{number}{suffix}"
            upscale_video(
                upscaler,
                source,
                target,
                options=VideoOptions("libx265", 10, "ultrafast"),
                report=lambda _: None,
            )
            with av.open(str(target)) as container:
                times = [p.pts * p.time_base * 10 for p in container.demux(video=0) if p.size]
                assert times == [0, 1]
                assert container.duration == pytest.approx(200_000, abs=1000)


EDGE = 30.25
"""Where the colour of `edged_video` changes, in luma samples."""


def edged_video(path, position, axis, codec="libx264", pix_fmt="yuv420p"):
    """A video of 64x64 whose colour changes at EDGE along an axis.

    Chroma samples lie at luma 2i (left, top) or 2i + 0.5 (centre), as H.273 figure 2 shows.
    """
    side = 64
    shift = 0.5 if position == "center" or (axis == 0 and position == "left") else 0.0
    height = side if pix_fmt.endswith("422p") else side // 2
    assert axis == 1 or height == side // 2
    edge = 128 + 60 * np.tanh((2 * np.arange(side // 2) + shift - EDGE) / 5)
    plane = np.tile(edge, (height, 1))
    plane = plane.T if axis == 0 else plane
    planes = [np.full((side, side), 120.0), 256 - plane, plane]
    with av.open(str(path), "w") as output:
        options = {"qmin": "1", "q": "1"} if codec == "mjpeg" else {"crf": "0"}
        options["chroma_sample_location"] = position
        stream = output.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = side, side, pix_fmt
        for index in range(2):
            frame = av.VideoFrame(side, side, pix_fmt)
            for target, values in zip(frame.planes, planes, strict=True):
                rows = np.zeros((target.height, target.line_size), np.uint8)
                rows[:, : target.width] = np.rint(values)
                target.update(rows)
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def crossing(path, axis):
    """Where the red of a video's first frame passes its middle, in chroma samples."""
    frame = frames_of(path)[0]
    depth = frame.format.components[2].bits
    plane = frame.planes[2]
    rows = np.frombuffer(bytes(plane), np.uint8 if depth == 8 else np.uint16)
    red = rows.reshape(plane.height, -1)[:, : plane.width] / 2 ** (depth - 8)
    line = red[:, plane.width // 2] if axis == 0 else red[plane.height // 2]
    index = int(np.argmax(line > 128)) - 1
    return index + (128 - line[index]) / (line[index + 1] - line[index])


@pytest.mark.parametrize("position", ["left", "center", "topleft"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_colour_edge_stays_where_it_was(tmp_path, small_network, position, axis):
    source = edged_video(tmp_path / "in.mkv", position, axis)
    # A linear x2 network: pixel k lies at (k - 0.5) / 2 of the input.
    upscaled(source, tmp_path / "out.mkv", small_network(radius=0), codec="ffv1")
    shift = 0.5 if position == "center" or (axis == 0 and position == "left") else 0.0
    found = 2 * crossing(tmp_path / "out.mkv", axis) + shift
    assert found == pytest.approx(2 * (EDGE + 0.5) - 0.5, abs=0.15)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "target", "encoder", "is_centred"),
    [
        ("in.avi", "mjpeg", "yuvj420p", "out.mkv", None, True),
        ("in.avi", "mjpeg", "yuvj420p", "out.avi", None, True),
        ("in.mkv", "libx264", "yuv420p", "out.mov", "prores_ks", False),
        ("in.avi", "mjpeg", "yuvj422p", "out.mp4", None, False),
        ("in.avi", "mjpeg", "yuvj422p", "out.mp4", "libx265", False),
        ("in.mkv", "libx264", "yuv420p", "out.ogv", "libvpx", False),
    ],
)
def test_chroma_lies_where_players_look_for_it_if_its_place_cannot_be_stated(
    tmp_path, small_network, *, name, codec, pix_fmt, target, encoder, is_centred
):
    if not {codec, encoder or codec} <= set(av.codecs_available):
        pytest.skip("this FFmpeg has no such encoder")
    source = edged_video(tmp_path / name, "center", 1, codec, pix_fmt)
    upscaled(source, tmp_path / target, small_network(radius=0), codec=encoder, crf=4)
    found = 2 * crossing(tmp_path / target, 1) + (0.5 if is_centred else 0.0)
    assert found == pytest.approx(2 * (EDGE + 0.5) - 0.5, abs=0.15)


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile private.mkv\n",
        "ffconcat version 1.0\nfile pipe.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nprivate.mkv\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    ],
)
@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
def test_a_list_of_other_files_is_no_video(tmp_path, small_network, make_video, text, name):
    make_video(tmp_path / "private.mkv", num_frames=2)
    os.mkfifo(tmp_path / "pipe.mkv")
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"{name} is a playlist"):
        upscaled(tmp_path / name, tmp_path / "out.mkv", small_network())
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize("place", ["missing.mp4", "pipe.mp4", "folder.mp4"])
def test_what_is_no_regular_file_is_no_video(tmp_path, small_network, place):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(InputError, match=f"no video at .*{place}"):
        upscaled(tmp_path / place, tmp_path / "out.mkv", small_network())


def test_pictures_and_videos_of_a_folder_are_done_in_one_run(
    tmp_path, small_network, make_video, capsys
):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.mp4", "b.mkv"):
        make_video(folder / name, num_frames=3)
    (folder / "broken.mp4").write_bytes(b"x")
    Image.new("RGB", (6, 4)).save(folder / "c.png")
    (folder / "notes.txt").write_text("x")
    model = str(small_network(radius=0))
    arguments = [str(folder), "-o", str(tmp_path / "out"), "--model", model]
    assert main([*arguments, "--runner", "onnxruntime", "--preset", "ultrafast"]) == 1
    captured = capsys.readouterr()
    assert "3 done" in captured.out
    assert "1 failed" in captured.out
    assert "1 .txt" in captured.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mkv", "c.png"]
    (folder / "broken.mp4").unlink()
    assert main([*arguments, "--runner", "onnxruntime"]) == 0
    assert "3 there already" in capsys.readouterr().out
