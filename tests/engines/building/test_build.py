"""Real builds, with NVIDIA's builder and parser; they need no GPU."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import onnx
import pytest

from swise_deploy.errors import BackendMissingError, BuildError, InputError
from swise_engines.building import build as building
from swise_engines.building.build import build_engine
from swise_engines.building.builder_config import CompileOptions, create_config
from swise_engines.building.options import BuildOptions, choose_backend, plan_build
from swise_engines.building.progress import BuildProgress
from swise_engines.building.verification import reason_not_to_run
from swise_engines.cuda.boundary import Device, GpuAtHand
from swise_engines.running.checks import check_file
from swise_engines.running.engine_cache import EngineCache, cache_key
from swise_engines.targets.catalogue import find_target
from swise_engines.tensorrt.api import Messages, create_builder, load_tensorrt
from swise_engines.tensorrt.onnx_source import read_source
from swise_engines.tensorrt.profiles import Extent, Profile
from swise_export.manifest import manifest_path

NO_GPU = GpuAtHand(None, "this test runs without one")
SMALL = Profile(Extent(1, 8, 8), Extent(1, 16, 12), Extent(2, 32, 24))


@pytest.fixture
def build(rtx, tmp_path, report):
    del rtx

    def run(path, target="sm86", *, out="out.engine", cache=None, heard=None, **options):
        return build_engine(
            path,
            tmp_path / out,
            BuildOptions(find_target(target), **{"profiles": (SMALL,), **options}),
            gpu=NO_GPU,
            cache=cache,
            report=report,
            notify=(heard if heard is not None else []).append,
        )

    return run


@pytest.mark.parametrize("target", ["sm75", "sm80", "sm86", "sm89", "sm120", "sm121", "rtx-4090"])
def test_engines_for_rtx_cards_build_without_a_gpu(build, make_onnx, target):
    built = build(make_onnx("fp16"), target)
    assert built.manifest.sms == (find_target(target).sm,)
    assert check_file(built.path) == built.manifest


def test_engines_for_different_cards_differ(build, make_onnx):
    path = make_onnx("fp16")
    plans = {build(path, t, out=f"{t}.engine").path.read_bytes() for t in ("sm86", "sm120")}
    assert len(plans) == 2


@pytest.mark.parametrize("kind", ["fp32", "int8", "mixed"])
@pytest.mark.parametrize("io", ["float", "uint8"])
def test_every_precision_and_layout_builds(build, make_onnx, kind, io):
    built = build(make_onnx(kind, io=io))
    assert built.manifest.precision_asked == kind
    assert built.manifest.io == io


def test_a_portable_engine_names_no_capability(build, make_onnx):
    built = build(make_onnx("fp16"), compatibility="ampere_plus")
    assert built.manifest.sms == ()


def test_several_profiles_become_part_of_one_engine(build, make_onnx):
    other = Profile(Extent(1, 64, 64), Extent(1, 64, 64), Extent(1, 64, 64))
    built = build(make_onnx("fp32"), profiles=(SMALL, other), optimization_level=1)
    assert built.manifest.profiles == (SMALL, other)
    assert built.manifest.optimization_level == 1


def test_fp16_requested_and_fp32_found_is_an_error_without_output(build, make_onnx, tmp_path):
    with pytest.raises(BuildError, match=r"fp16 was requested.*100\.0% fp32"):
        build(make_onnx("fp32"), precision="fp16")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_lies_about_its_precision_is_found_out(build, make_onnx):
    with pytest.raises(BuildError, match="fp16 was requested"):
        build(make_onnx("fp32", says={"precision": "fp16"}))


def test_a_fixed_file_keeps_its_size(build, make_onnx):
    path = make_onnx("fp32", sides=(1, 12, 16))
    built = build(path, profiles=())
    assert built.manifest.profiles[0].is_fixed
    assert built.manifest.profiles[0].opt == Extent(1, 16, 12)
    with pytest.raises(InputError, match="takes a width of 16 alone"):
        build(path, profiles=(Profile(*[Extent(1, 20, 12)] * 3),))


@pytest.mark.parametrize("sides", [("n", "s", "s"), ("s", "s", "s")])
def test_sides_that_share_one_name_may_differ(build, make_onnx, sides):
    """TensorRT refuses 1280x720 for a file whose height and width are both called "s"."""
    built = build(make_onnx("fp32", sides=sides))
    assert built.manifest.profiles[0].opt.width != built.manifest.profiles[0].opt.height


def test_an_operator_that_tensorrt_lacks_is_named(build, make_onnx, tmp_path):
    model = onnx.load(make_onnx("fp32"))
    strange = onnx.helper.make_node("Unique", ["lr"], ["found"], name="strange", sorted=1)
    model.graph.node.append(strange)
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(BuildError, match=r"cannot read .*strange\.onnx.*Unique"):
        build(tmp_path / "strange.onnx")


def test_too_little_workspace_names_the_option_that_raises_it(build, make_onnx):
    with pytest.raises(BuildError, match=r"workspace: 1 MiB.*Raise --workspace"):
        build(make_onnx("fp32"), workspace_mib=1)


@pytest.mark.usefixtures("rtx")
def test_the_manifest_of_the_onnx_file_is_not_overwritten(make_onnx, report):
    path = make_onnx("fp32", name="same.onnx")
    options = BuildOptions(find_target("sm86"))
    settings = {"gpu": NO_GPU, "cache": None, "report": report, "notify": str}
    with pytest.raises(InputError, match="put its manifest over"):
        build_engine(path, path.with_suffix(".engine"), options, **settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version_compatible": True}, "neither version-compatible"),
        ({"backend": "tensorrt"}, "on the device itself|not import"),
        ({"dla_core": 0}, "has 0 of them"),
    ],
)
def test_what_rtx_cannot_do_is_refused_before_building(build, make_onnx, options, message):
    with pytest.raises((InputError, BackendMissingError), match=message):
        build(make_onnx("fp32"), **options)


def test_a_jetson_s_engine_is_built_on_the_jetson(make_onnx):
    options = BuildOptions(find_target("jetson-orin-nano"))
    source = read_source(make_onnx("fp32"))
    with pytest.raises(BackendMissingError, match="on the device itself"):
        plan_build(source, options, "tensorrt", "10.3.0", None)
    xavier = Device("Xavier", "7.2", is_integrated=True, driver_cuda="11.4")
    with pytest.raises(InputError, match=r"SM 8\.7, this machine has a Xavier of SM 7\.2"):
        plan_build(source, options, "tensorrt", "10.3.0", xavier)
    orin = Device("Orin", "8.7", is_integrated=True, driver_cuda="12.6")
    assert plan_build(source, options, "tensorrt", "10.3.0", orin).sm == "8.7"
    with pytest.raises(InputError, match=r"TensorRT 9\.1\.0 does not serve"):
        plan_build(source, options, "tensorrt", "9.1.0", orin)


def gpu_of(sm, name="some GPU"):
    device = Device(name, sm, is_integrated=False, driver_cuda="12.8")
    return GpuAtHand(SimpleNamespace(device=device))  # nothing else of it is used


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(("sm", "compatibility"), [("8.9", "none"), ("99.0", "ampere_plus")])
def test_rtx_builds_a_portable_engine_for_a_gpu_that_is_newer_than_itself(
    make_onnx, sm, compatibility
):
    source = read_source(make_onnx("fp32"))
    settings = plan_build(source, BuildOptions(None), "tensorrt_rtx", "1.7.1", gpu_of(sm).device)
    assert (settings.sm, settings.compatibility) == (sm, compatibility)


# 1.7.1.116 builds on an H100 (9.0) and then loads nothing there; it lists none of the others.
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("sm", ["7.0", "8.7", "9.0", "10.0", "11.0"])
@pytest.mark.parametrize("compatibility", ["none", "ampere_plus"])
def test_rtx_does_not_build_for_a_gpu_at_hand_on_which_it_runs_nothing(
    make_onnx, report, tmp_path, sm, compatibility
):
    options = BuildOptions(None, backend="tensorrt_rtx", compatibility=compatibility)
    message = (
        rf"runs no engine on SM {sm}: it serves SM .*8\.9, 12\.0.* and later; this machine has "
        r"some GPU.*pip install 'tensorrt-cu12<12'.*--backend tensorrt\. .*--target sm86"
    )
    with pytest.raises(BackendMissingError, match=message):
        build_engine(
            make_onnx("fp32"),
            tmp_path / "out.engine",
            options,
            gpu=gpu_of(sm),
            cache=EngineCache(tmp_path / "cache"),
            report=report,
            notify=print,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("rtx")
def test_an_engine_for_this_gpu_that_tensorrt_refuses_is_not_kept(
    make_onnx, report, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise BackendMissingError("TensorRT refuses the engine: unsupported_cc")

    monkeypatch.setattr(building, "read_back", refuse)

    def run(target, cache):
        options = BuildOptions(target, backend="tensorrt_rtx", profiles=(SMALL,))
        return build_engine(
            make_onnx("fp32"),
            tmp_path / "out.engine",
            options,
            gpu=gpu_of("8.9"),
            cache=cache,
            report=report,
            notify=print,
        )

    for cache in (None, EngineCache(tmp_path / "cache")):
        with pytest.raises(BackendMissingError, match="unsupported_cc"):
            run(None, cache)
        assert [p for p in tmp_path.rglob("*") if p.suffix in {".engine", ".json"}] == []
    named = run(find_target("sm89"), None)
    assert named.manifest.read_back_note.startswith("not read back: TensorRT refuses")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("compatibility", ["none", "ampere_plus"])
def test_where_rtx_runs_nothing_it_still_builds_for_other_gpus(
    make_onnx, report, tmp_path, compatibility
):
    gpu = gpu_of("9.0", "NVIDIA H100 80GB HBM3")
    built = build_engine(
        make_onnx("fp32"),
        tmp_path / "out.engine",
        BuildOptions(find_target("sm86"), profiles=(SMALL,), compatibility=compatibility),
        gpu=gpu,
        cache=None,
        report=report,
        notify=print,
    )
    assert check_file(built.path) is not None
    assert "SM 9.0" in built.manifest.read_back_note
    assert "SM 9.0" in reason_not_to_run(built.manifest, gpu)


def test_current_needs_a_gpu():
    with pytest.raises(BackendMissingError, match="--target current needs a GPU"):
        choose_backend(BuildOptions(None), None)


INTERRUPTED_BUILD = """
import os, signal, sys
from pathlib import Path
from swise_engines.running.engine_cache import EngineCache
from swise_engines.building.build import build_engine
from swise_engines.cuda.boundary import GpuAtHand
from swise_engines.building.options import BuildOptions
from swise_engines.targets.catalogue import find_target

source, out, cache = map(Path, sys.argv[1:])
phases = []

def interrupt(phase, share):
    phases.append(phase)
    if len(phases) == 3:
        os.kill(os.getpid(), signal.SIGINT)

try:
    build_engine(
        source, out, BuildOptions(find_target("sm86")),
        gpu=GpuAtHand(None, "this test runs without one"), cache=EngineCache(cache),
        report=interrupt, notify=print,
    )
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_stops_a_build_and_leaves_the_old_engine(rtx, make_onnx, tmp_path):
    # In a process of its own, as the command is: pytest has signal handlers too.
    del rtx
    out = tmp_path / "kept.engine"
    out.write_bytes(b"the old one")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_BUILD, make_onnx("fp16"), out, tmp_path / "cache"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert out.read_bytes() == b"the old one"
    assert not manifest_path(out).exists()
    assert not list((tmp_path / "cache").rglob("*.engine"))


def test_a_build_in_another_thread_works_too(build, make_onnx):
    path, built = make_onnx("fp16"), []
    thread = threading.Thread(target=lambda: built.append(build(path)))
    thread.start()
    thread.join()
    assert check_file(built[0].path) == built[0].manifest


def test_the_same_build_comes_from_the_cache(build, make_onnx, tmp_path):
    cache, path = EngineCache(tmp_path / "cache"), make_onnx("fp16")
    first = build(path, cache=cache, out="a.engine")
    heard: list[str] = []
    second = build(path, cache=cache, out="b.engine", heard=heard)
    assert (first.was_cached, second.was_cached) == (False, True)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.manifest == second.manifest
    assert heard == ["the cache has this engine; nothing to build"]


def test_whatever_changes_the_engine_changes_the_key(build, make_onnx, tmp_path):
    cache, path = EngineCache(tmp_path / "cache"), make_onnx("fp16")
    other_size = Profile(SMALL.min, SMALL.min, SMALL.max)
    variants = [
        build(path, cache=cache),
        build(path, "sm89", cache=cache),
        build(path, cache=cache, profiles=(other_size,)),
        build(path, cache=cache, optimization_level=2),
        build(make_onnx("fp32"), cache=cache),
    ]
    assert not any(built.was_cached for built in variants)


def test_an_engine_of_an_older_version_of_this_project_is_built_again(
    build, make_onnx, tmp_path, monkeypatch
):
    cache, path = EngineCache(tmp_path / "cache"), make_onnx("fp16")
    build(path, cache=cache)
    monkeypatch.setattr(building, "__version__", "99.0")
    assert not build(path, cache=cache).was_cached


def test_a_damaged_cache_entry_is_built_again(build, make_onnx, tmp_path):
    cache, path = EngineCache(tmp_path / "cache"), make_onnx("fp16")
    good = build(path, cache=cache).path.read_bytes()
    (entry,) = (tmp_path / "cache").rglob("*.engine")
    entry.write_bytes(b"garbage")
    again = build(path, cache=cache)
    assert not again.was_cached
    assert again.path.read_bytes()[:4] == good[:4]
    assert check_file(entry) is not None


def test_the_second_of_two_waits_for_the_first(tmp_path):
    cache = EngineCache(tmp_path)
    key = cache_key({"a": 1})
    order = []
    holding = threading.Event()

    def first():
        with cache.locked(key, on_wait=lambda: order.append("first waits")):
            holding.set()
            waiting.wait(10)
            order.append("first done")

    waiting = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert holding.wait(10)
    with cache.locked(key, on_wait=waiting.set):
        order.append("second")
    thread.join()
    assert order == ["first done", "second"]


def test_keys_ignore_the_order_of_facts_and_nothing_else():
    assert cache_key({"a": 1, "b": [2]}) == cache_key({"b": [2], "a": 1})
    assert cache_key({"a": 1}) != cache_key({"a": "1"})


def test_timing_caches_are_kept_apart_by_version_and_device(tmp_path):
    cache = EngineCache(tmp_path)
    names = {
        cache.timing_path("tensorrt", version, device).name
        for version in ("10.3.0", "10.16.1")
        for device in ("Orin (nvgpu)", "NVIDIA L4")
    }
    assert len(names) == 4
    assert all(" " not in name and "/" not in name for name in names)


def test_an_accelerator_takes_one_size(make_onnx):
    source = read_source(make_onnx("fp16"))
    orin = Device("Orin", "8.7", is_integrated=True, driver_cuda="12.6")
    fixed = Profile(*[Extent(1, 32, 24)] * 3)

    def plan(profile):
        options = BuildOptions(find_target("jetson-agx-orin"), dla_core=1, profiles=(profile,))
        return plan_build(source, options, "tensorrt", "10.3.0", orin)

    assert plan(fixed).dla_core == 1
    with pytest.raises(InputError, match=r"takes one size.*--size WxH"):
        plan(SMALL)


@pytest.mark.usefixtures("rtx")
def test_fp32_is_not_computed_in_tf32(make_onnx, report):
    trt = load_tensorrt("tensorrt_rtx")
    builder = create_builder(trt, Messages(trt))
    network = builder.create_network(0)
    assert builder.create_builder_config().get_flag(trt.BuilderFlag.TF32)
    config = create_config(
        trt,
        builder,
        network,
        CompileOptions("tensorrt_rtx", "8.6", ()),
        source=read_source(make_onnx("fp32")),
        progress=BuildProgress(report),
    )
    assert not config.get_flag(trt.BuilderFlag.TF32)


def test_of_several_outputs_the_engine_keeps_the_picture(make_onnx, build, tmp_path):
    model = onnx.load(make_onnx("fp32"))
    picture = model.graph.output[0].name
    pool = onnx.helper.make_node("GlobalAveragePool", [picture], ["brightness"])
    model.graph.node.append(pool)
    model.graph.output.insert(
        0, onnx.helper.make_tensor_value_info("brightness", onnx.TensorProto.FLOAT, ["b", 3, 1, 1])
    )
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    built = build(path)
    assert built.manifest.interface.output.name == picture
    # The names of an engine's tensors stand in its bytes.
    content = built.path.read_bytes()
    assert picture.encode() in content
    assert b"brightness" not in content
