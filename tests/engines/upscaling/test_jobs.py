import os

import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_engines.upscaling.batch import upscale_files
from swise_engines.upscaling.jobs import Job, plan_jobs, split_done
from swise_engines.upscaling.upscaler import Upscaler


def save(path, value=128, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def targets(plan, root):
    return sorted(str(job.target.relative_to(root)) for job in plan.jobs)


def test_a_folder_is_mirrored(tmp_path):
    for name in ("in/a.png", "in/deep/er/b.JPG", "in/.hidden.png"):
        save(tmp_path / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out")
    assert targets(jobs, tmp_path) == ["out/a.png", "out/deep/er/b.JPG"]
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out", file_format="webp")
    assert targets(jobs, tmp_path) == ["out/a.webp", "out/deep/er/b.webp"]


def test_an_output_inside_the_input_is_not_upscaled_again(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "out/a.png")
    assert targets(plan_jobs([str(tmp_path)], tmp_path / "out"), tmp_path) == ["out/a.png"]


def test_a_pattern_and_a_list_go_into_one_folder(tmp_path):
    for name in ("a1.png", "a2.png", "b.png"):
        save(tmp_path / name)
    jobs = plan_jobs([str(tmp_path / "a*.png"), str(tmp_path / "b.png")], tmp_path / "out")
    assert targets(jobs, tmp_path) == ["out/a1.png", "out/a2.png", "out/b.png"]


def test_one_file_goes_to_a_file_or_into_a_folder(tmp_path):
    source = save(tmp_path / "a.png")
    assert plan_jobs([str(source)], tmp_path / "b.webp").jobs == (Job(source, tmp_path / "b.webp"),)
    assert plan_jobs([str(source)], tmp_path / "out").jobs == (Job(source, tmp_path / "out/a.png"),)
    (tmp_path / "dir.png").mkdir()
    assert (
        plan_jobs([str(source)], tmp_path / "dir.png").jobs[0].target == tmp_path / "dir.png/a.png"
    )


@pytest.mark.parametrize("output", ["out.png", "there", "there.png"])
def test_several_pictures_do_not_become_one_file(tmp_path, output):
    for name in ("in/a.png", "in/b.png", "there", "there.png"):
        save(tmp_path / name) if name.startswith("in") else (tmp_path / name).write_bytes(b"old")
    pictures = [str(tmp_path / "in/a.png"), str(tmp_path / "in/b.png")]
    for inputs in (pictures, [str(tmp_path / "in")], [str(tmp_path / "in/*.png")]):
        with pytest.raises(InputError, match=rf"{output} is the name of a file.*Give a folder"):
            plan_jobs(inputs, tmp_path / output)
    assert not (tmp_path / "out.png").exists()


def test_a_result_without_a_format_is_refused_before_anything_runs(tmp_path):
    source = save(tmp_path / "a.png")
    for name in ("out.gif", "out.xyz"):
        with pytest.raises(InputError, match="names no picture format"):
            plan_jobs([str(source)], tmp_path / name)


def test_a_format_that_the_output_contradicts_is_refused(tmp_path):
    source = save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"out\.jpg is no webp file"):
        plan_jobs([str(source)], tmp_path / "out.jpg", file_format="webp")
    assert plan_jobs([str(source)], tmp_path / "out.jpeg", file_format="jpg").jobs[
        0
    ].target.name == ("out.jpeg")


def test_two_sources_for_one_file_are_refused(tmp_path):
    save(tmp_path / "in/a.png")
    save(tmp_path / "in/a.jpg")
    with pytest.raises(InputError, match=r"both become .*a\.webp"):
        plan_jobs([str(tmp_path / "in")], tmp_path / "out", file_format="webp")


def test_a_source_is_never_overwritten(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(InputError, match="overwrite itself"):
        plan_jobs([str(tmp_path)], tmp_path)


@pytest.mark.parametrize("text", ["missing.png", "missing*.png", "empty"])
def test_nothing_found_is_an_error(tmp_path, text):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no"):
        plan_jobs([str(tmp_path / text)], tmp_path / "out")


def test_one_bad_file_does_not_stop_the_others_and_a_second_run_does_only_what_is_missing(
    tmp_path, small_network
):
    for i in range(5):
        save(tmp_path / f"in/{i}.png", value=40 * i)
    (tmp_path / "in/2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out").jobs
    with Upscaler.open(small_network(radius=0)) as upscaler:
        outcomes = list(upscale_files(upscaler, jobs))
    assert [o.item.source.name for o in outcomes if o.error] == ["2.png"]
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert written == ["0.png", "1.png", "3.png", "4.png"]
    for i in (0, 1, 3, 4):
        with Image.open(tmp_path / f"out/{i}.png") as image:
            assert (np.asarray(image) == 40 * i).all()
            assert image.size == (12, 8)
    to_do, done = split_done(jobs)
    assert [job.source.name for job in to_do] == ["2.png"]
    assert len(done) == 4


def test_metadata_that_a_format_cannot_hold_stop_only_their_own_file(tmp_path, small_network):
    exif = Image.Exif()
    exif[0x010E] = "long" * 20_000  # ImageDescription; a JPEG holds 64 KiB of EXIF
    (tmp_path / "in").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "in/long.png", exif=exif)
    save(tmp_path / "in/short.png")
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out", file_format="jpg").jobs
    with Upscaler.open(small_network(radius=0), runner="onnxruntime") as upscaler:
        outcomes = list(upscale_files(upscaler, jobs))
    (failed,) = [o for o in outcomes if o.error]
    assert failed.item.source.name == "long.png"
    assert str(failed.error).startswith("jpg cannot hold it: EXIF data is too long. Use --format")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["short.jpg"]


KINDS = {"a.png": "PNG", "b.jfif": "JPEG", "c.jpe": "JPEG", "d.gif": "GIF", "h.dib": "DIB"}


def folder_of_downloads(folder):
    folder.mkdir()
    for name, kind in KINDS.items():
        Image.new("RGB", (6, 4)).save(folder / name, kind)
    for name in ("f.heic", "g.jxl", "G.JXL", "notes"):
        (folder / name).write_bytes(b"x")
    (folder / "clip.mts").write_bytes(b"G" * 200)
    return folder


def test_every_supported_suffix_is_taken_and_the_rest_is_counted(tmp_path):
    plan = plan_jobs([str(folder_of_downloads(tmp_path / "in"))], tmp_path / "out")
    assert targets(plan, tmp_path / "out") == [
        "a.png",
        "b.jfif",
        "c.jpe",
        "clip.mts",
        "d.png",
        "h.bmp",
    ]
    assert [job.kind for job in plan.jobs if job.source.name == "clip.mts"] == ["video"]
    assert plan.num_left_out == {"": 1, ".heic": 1, ".jxl": 2}


def test_of_several_files_those_of_other_kinds_are_left_out(tmp_path):
    folder = folder_of_downloads(tmp_path / "in")
    plan = plan_jobs([str(path) for path in sorted(folder.iterdir())], tmp_path / "out")
    assert len(plan.jobs) == 6
    assert plan.num_left_out == {"": 1, ".heic": 1, ".jxl": 2}
    with pytest.raises(InputError, match=r"1 \.heic"):
        plan_jobs([str(folder / "f.heic"), str(folder / "notes")], tmp_path / "out")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_picture_without_a_known_suffix_is_known_by_its_content(tmp_path, kind):
    for name in ("IMG_1", "b.download"):
        Image.new("RGB", (6, 4)).save(tmp_path / name, kind)
        (job,) = plan_jobs([str(tmp_path / name)], tmp_path / "out").jobs
        assert job.target == tmp_path / "out" / f"{name}.png"


@pytest.mark.parametrize(
    ("name", "content", "output", "message"),
    [
        ("a.xyz", b"no picture", "out", r"a\.xyz is neither a picture nor a video"),
        ("a.bin", b"\xff\x0a" + bytes(20), "out.png", "JPEG XL"),
        ("a.mp4", b"", "out.png", r"a\.mp4 is a video"),
        ("a.png", b"", "out.mp4", r"a\.png is a picture"),
    ],
)
def test_an_input_that_does_not_fit_is_named_and_not_the_output(
    tmp_path, name, content, output, message
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan_jobs([str(tmp_path / name)], tmp_path / output)


def test_an_animated_gif_becomes_a_video_and_a_still_one_a_picture(tmp_path):
    frames = [Image.new("RGB", (6, 4), (i, 0, 0)) for i in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    (job,) = plan_jobs([str(tmp_path / "moving.gif")], tmp_path / "out.mkv").jobs
    assert job.kind == "video"
    (job,) = plan_jobs([str(tmp_path / "still.gif")], tmp_path / "out").jobs
    assert (job.kind, job.target.name) == ("picture", "still.png")


def test_a_run_in_place_goes_on_and_its_results_are_no_inputs(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.jpg")
    first = plan_jobs([str(tmp_path)], tmp_path, file_format="png")
    assert targets(first, tmp_path) == ["a.png", "b.png"]
    save(tmp_path / "a.png", size=(12, 8))  # the result of the first job, x2
    save(tmp_path / "c.jpg")
    second = plan_jobs([str(tmp_path)], tmp_path, file_format="png")
    to_do, done = split_done(second.jobs)
    assert [job.source.name for job in done] == ["a.jpg"]
    assert [job.source.name for job in to_do] == ["b.jpg", "c.jpg"]


def test_a_picture_that_only_has_the_name_of_a_result_is_not_taken_for_one(tmp_path):
    save(tmp_path / "a.jpg", size=(6, 4))
    save(tmp_path / "a.png", size=(7, 5))
    with pytest.raises(InputError, match=r"a\.png"):
        plan_jobs([str(tmp_path)], tmp_path, file_format="png")


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is no regular file"):
        plan_jobs([str(tmp_path / "pipe.png")], tmp_path / "out")
