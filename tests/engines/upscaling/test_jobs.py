import numpy as np
import pytest
from PIL import Image

from swise_deploy.errors import InputError
from swise_engines.upscaling.jobs import Job, plan_jobs, split_done, upscale_files
from swise_engines.upscaling.upscaler import Upscaler


def save(path, value=128, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def targets(jobs, root):
    return sorted(str(job.target.relative_to(root)) for job in jobs)


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
    assert plan_jobs([str(source)], tmp_path / "b.webp") == [Job(source, tmp_path / "b.webp")]
    assert plan_jobs([str(source)], tmp_path / "out") == [Job(source, tmp_path / "out/a.png")]
    (tmp_path / "dir.png").mkdir()
    assert plan_jobs([str(source)], tmp_path / "dir.png")[0].target == tmp_path / "dir.png/a.png"


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
    assert plan_jobs([str(source)], tmp_path / "out.jpeg", file_format="jpg")[0].target.name == (
        "out.jpeg"
    )


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
def test_nothing_found_is_told(tmp_path, text):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no"):
        plan_jobs([str(tmp_path / text)], tmp_path / "out")


def test_one_bad_file_does_not_stop_the_others_and_a_second_run_does_only_what_is_missing(
    tmp_path, small_network
):
    for i in range(5):
        save(tmp_path / f"in/{i}.png", value=40 * i)
    (tmp_path / "in/2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out")
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
    jobs = plan_jobs([str(tmp_path / "in")], tmp_path / "out", file_format="jpg")
    with Upscaler.open(small_network(radius=0), runner="onnxruntime") as upscaler:
        outcomes = list(upscale_files(upscaler, jobs))
    (failed,) = [o for o in outcomes if o.error]
    assert failed.item.source.name == "long.png"
    assert str(failed.error).startswith("jpg cannot hold it: EXIF data is too long. Use --format")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["short.jpg"]
