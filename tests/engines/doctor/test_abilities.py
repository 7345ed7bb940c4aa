import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from swise_deploy.command.dependencies import install_command
from swise_deploy.errors import InputError
from swise_engines.cuda.boundary import BINDINGS
from swise_engines.doctor.abilities import Ability, list_abilities, list_advice
from swise_engines.doctor.examination import Examination, examine, this_machine
from swise_engines.doctor.imports import (
    Package,
    PythonInstallation,
    probe_package,
    probe_packages,
)
from swise_engines.doctor.machine import Fact, Machine, UnobservableError, observe
from swise_engines.doctor.probe import PROBES
from swise_engines.doctor.target_support import check_target

ORIN_NANO_SUPER = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.7, GCID: 42132812, BOARD: generic, "
    "EABI: aarch64, DATE: Thu Sep 18 22:54:44 UTC 2025\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< POWER_MODEL ID=3 NAME=7W >\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0",
    "proc/meminfo": "MemTotal:        7802880 kB\nMemAvailable:    1048576 kB\nSwapTotal: 0 kB\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "usr/lib/python3.10/dist-packages/tensorrt/__init__.py": "",
}
JETSON_COMMANDS = {
    "nvpmodel": "NV Power Mode: 25W\n1\n",
    "tegrastats": "06-18-2025 11:25:24 RAM 3452/7620MB (lfb 25x4MB) GR3D_FREQ 0% cpu@50.031C "
    "gpu@49.031C tj@50.25C VDD_IN 4824mW/4824mW VDD_CPU_GPU_CV 518mW/518mW VDD_SOC 1475mW/1475mW\n",
    "nvidia-smi": "Orin (nvgpu), 8.7, 540.4.0, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]\n",
}
ORIN_GPU = {"name": "Orin", "sm": "8.7", "memory_mib": 7619, "integrated": True}
CARD = {"name": "NVIDIA GeForce RTX 4090", "sm": "8.9", "memory_mib": 24080, "integrated": False}


def lay_out(folder: Path, files: dict[str, str], commands: dict[str, str]) -> Machine:
    """A machine whose files and whose commands' answers were recorded on another one."""
    for name, text in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "bin").mkdir()
    (folder / "root").mkdir(exist_ok=True)
    for name, answer in commands.items():
        (folder / "bin" / f"{name}.txt").write_text(answer)
        script = folder / "bin" / name
        script.write_text(f"#!/bin/sh\nexec /bin/cat '{folder}/bin/{name}.txt'\n")
        script.chmod(0o755)
    return Machine(root=folder / "root", command_path=str(folder / "bin"))


def packages(*gpus: dict[str, object], **versions: str) -> dict[str, Package]:
    """What imports: the named versions; everything else is absent."""
    names = [name for name in PROBES if name not in ("cuda", "onnxruntime")]
    found = {name: Package(name, None, f"No module named '{name}'") for name in names}
    found |= {name: Package(name, version, None) for name, version in versions.items()}
    found["onnxruntime"] = Package(
        "onnxruntime", "1.23.0", None, {"providers": ["CPUExecutionProvider"]}
    )
    found["cuda"] = (
        Package("cuda", "12.6", None, {"devices": list(gpus)})
        if gpus
        else Package("cuda", None, "no NVIDIA driver is visible here")
    )
    return found


def in_python(seen: Examination, python: PythonInstallation) -> Examination:
    return dataclasses.replace(seen, python=python)


@pytest.fixture
def jetson(tmp_path: Path) -> Machine:
    return lay_out(tmp_path, ORIN_NANO_SUPER, JETSON_COMMANDS)


@pytest.fixture
def desktop(tmp_path: Path) -> Machine:
    smi = "NVIDIA GeForce RTX 4090, 8.9, 580.65.06, 24564, 812, 210, 3105, 41, 22.31\n"
    files = {"proc/meminfo": "MemTotal: 65536000 kB\nMemAvailable: 60000000 kB\nSwapTotal: 0 kB\n"}
    return lay_out(tmp_path, files, {"nvidia-smi": smi})


def by_name(abilities: list[Ability], name: str) -> Ability:
    return next(ability for ability in abilities if ability.name == name)


def test_a_jetson_is_read_from_its_files_and_commands(jetson):
    seen = examine(jetson, packages(ORIN_GPU))
    facts = {fact.name: fact.value for fact in seen.sections["jetson"]}
    assert facts == {
        "module": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "l4t": "36.4.7",
        "jetpack": "6.2.1",
        "power_mode": "25W",
        "gpu_clock_mhz": 306.0,
        "gpu_clock_max_mhz": 918.0,
        "clocks_locked": False,
        "module_power_w": 4.824,
        "gpu_temperature_c": 49.031,
    }
    assert seen.gpu is not None
    assert (seen.gpu.sm, seen.gpu.target) == ("8.7", "jetson-orin-nano-super")
    assert seen.fact("gpu", "driver").value == "540.4.0"
    assert seen.fact("machine", "memory_mib").value == 7620.0


def test_what_a_jetson_does_not_tell_carries_its_reason(jetson):
    seen = examine(jetson, packages(ORIN_GPU))
    fact = seen.fact("gpu", "power_w")
    assert fact.value is None
    assert fact.reason == "nvidia-smi does not report it for this GPU"


def test_a_slow_mode_moving_clocks_and_little_memory_are_advised_against(jetson):
    advice = list_advice(examine(jetson, packages(ORIN_GPU)))
    assert [item.fix for item in advice] == [
        ("sudo nvpmodel -m 2",),
        ("sudo jetson_clocks",),
        ("sudo systemctl isolate multi-user.target   # until the next boot, without desktop",),
    ]
    assert "1024 MiB of memory free, a build needs 2048" in advice[2].what


def test_at_full_power_with_locked_clocks_there_is_nothing_to_advise(tmp_path):
    files = ORIN_NANO_SUPER | {
        "sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        "proc/meminfo": "MemTotal: 7802880 kB\nMemAvailable: 5000000 kB\nSwapTotal: 0 kB\n",
    }
    commands = JETSON_COMMANDS | {"nvpmodel": "NV Power Mode: MAXN_SUPER\n2\n"}
    machine = lay_out(tmp_path, files, commands)
    assert list_advice(examine(machine, packages(ORIN_GPU))) == []


def test_a_venv_that_hides_jetpacks_tensorrt_is_opened_by_one_command(jetson, tmp_path):
    (tmp_path / "pyvenv.cfg").write_text(
        "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.10.12\n"
    )
    python = PythonInstallation((3, 10), tmp_path, is_virtual=True, sees_system=False)
    seen = in_python(examine(jetson, packages(ORIN_GPU)), python)
    ability = by_name(list_abilities(seen), "build engines with TensorRT")
    assert not ability.works
    assert ability.why == "tensorrt: not installed"
    (command,) = ability.fix
    subprocess.run(["/bin/sh", "-c", command], check=True)
    assert "include-system-site-packages = true" in (tmp_path / "pyvenv.cfg").read_text()


@pytest.mark.parametrize(("version", "virtual"), [((3, 12), True), ((3, 10), False)])
def test_another_python_gets_a_venv_of_jetpacks_own(jetson, tmp_path, version, virtual):
    python = PythonInstallation(version, tmp_path, is_virtual=virtual, sees_system=False)
    seen = in_python(examine(jetson, packages(ORIN_GPU)), python)
    ability = by_name(list_abilities(seen), "run engines")
    assert ability.fix == (
        "/usr/bin/python3.10 -m venv --system-site-packages ~/swise",
        install_command("tensorrt", pip="~/swise/bin/pip"),
    )


def test_a_jetson_without_tensorrt_installs_jetpack(tmp_path):
    files = {name: text for name, text in ORIN_NANO_SUPER.items() if "tensorrt" not in name}
    machine = lay_out(tmp_path, files, JETSON_COMMANDS)
    abilities = list_abilities(examine(machine, packages(ORIN_GPU)))
    fix = by_name(abilities, "build engines with TensorRT").fix
    assert fix == ("sudo apt-get update", "sudo apt-get install nvidia-jetpack")


@pytest.mark.parametrize(
    ("cuda", "requirement"), [("12.6", "cuda-bindings<13"), ("13.0", "cuda-bindings<14")]
)
def test_a_jetson_without_a_binding_installs_the_one_for_its_driver(jetson, cuda, requirement):
    found = packages(ORIN_GPU, tensorrt="10.3.0", polygraphy="0.49.20")
    found["cuda"] = dataclasses.replace(found["cuda"], version=cuda)
    ability = by_name(list_abilities(examine(jetson, found)), "run engines")
    assert ability.why == "cuda_bindings: not installed; pycuda: not installed"
    (command,) = ability.fix
    assert command.endswith(f" install '{requirement}'")


def test_a_tensorrt_that_does_not_start_is_installed_but_no_ability(jetson):
    found = packages(ORIN_GPU, polygraphy="0.49.20", cuda_bindings="12.9.1")
    reason = "Builder: CUDA initialization failure with error: 35"
    found["tensorrt"] = Package("tensorrt", "8.6.0", None, {"start_error": reason})
    seen = examine(jetson, found)
    for name in ("build engines with TensorRT", "run engines"):
        ability = by_name(list_abilities(seen), name)
        assert not ability.works
        assert reason in ability.why
    assert seen.fact("python", "tensorrt").value == "8.6.0"


def test_what_is_installed_but_broken_is_not_installed_again(jetson):
    found = packages(ORIN_GPU)
    broken = "libnvinfer.so.10: cannot open shared object file"
    found["tensorrt"] = Package("tensorrt", None, broken)
    ability = by_name(list_abilities(examine(jetson, found)), "build engines with TensorRT")
    assert broken in ability.why
    assert ability.fix == (f"{sys.executable} -m swise_engines.doctor.probe tensorrt",)


def test_a_ready_jetson_serves_itself(jetson):
    found = packages(ORIN_GPU, tensorrt="10.3.0", polygraphy="0.49.20", pycuda="2024.1.2")
    seen = examine(jetson, found)
    for name in ("current", "jetson-orin-nano-super", "jetson-orin-nano"):
        support = check_target(seen, name)
        assert (support.build.works, support.run.works) == (True, True)
        assert support.build.why == "TensorRT 10.3.0 for SM 8.7"


def test_a_tensorrt_that_does_not_serve_the_device_is_named(jetson):
    found = packages(ORIN_GPU, tensorrt="11.4.1", polygraphy="0.53.6", pycuda="2024.1.2")
    support = check_target(examine(jetson, found), "jetson-orin-nano")
    assert not support.build.works
    assert (
        "TensorRT 11.4.1 does not serve Jetson Orin Nano 8GB; 8.5, 8.6, 10.3" in support.build.why
    )


def test_engines_for_rtx_cards_are_built_without_a_gpu_and_run_only_on_theirs(desktop):
    found = packages(CARD, tensorrt_rtx="1.7.1", polygraphy="0.53.6", cuda_bindings="13.0.1")
    seen = examine(desktop, found)
    assert seen.gpu is not None
    assert seen.gpu.target == "rtx-4090"
    own, other = check_target(seen, "current"), check_target(seen, "rtx-5090")
    assert (own.build.works, own.run.works) == (True, True)
    assert (other.build.works, other.run.works) == (True, False)
    assert other.run.why == ("GeForce RTX 5090 is SM 12.0, NVIDIA GeForce RTX 4090 is SM 8.9")


@pytest.mark.parametrize(
    ("cuda", "wheel"), [("12.8", "tensorrt-cu12"), ("13.0", "tensorrt"), ("13.2", "tensorrt")]
)
def test_the_tensorrt_to_install_is_for_the_cuda_that_the_driver_serves(desktop, cuda, wheel):
    found = packages(CARD)
    found["cuda"] = dataclasses.replace(found["cuda"], version=cuda)
    abilities = list_abilities(examine(desktop, found))
    first, second = by_name(abilities, "build engines with TensorRT").fix
    assert first.endswith(f" install '{wheel}<12'")
    assert second == install_command("tensorrt", pip=first.partition(" install ")[0])


RTX = {"capabilities": ["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]}


@pytest.mark.parametrize("name", ["NVIDIA H100 80GB HBM3", "NVIDIA GH200 480GB"])
def test_where_rtx_only_builds_nothing_runs_and_tensorrt_is_the_remedy(tmp_path, name):
    gpu = {"name": name, "sm": "9.0", "memory_mib": 81559, "integrated": False}
    found = packages(gpu, tensorrt_rtx="1.7.1.116", polygraphy="0.53", cuda_bindings="13.3.1")
    found["tensorrt_rtx"] = dataclasses.replace(found["tensorrt_rtx"], details=RTX)
    found["cuda"] = dataclasses.replace(found["cuda"], version="13.0")
    seen = examine(lay_out(tmp_path, {}, {}), found)
    run = by_name(list_abilities(seen), "run engines")
    assert not run.works
    assert run.why == (
        "TensorRT for RTX 1.7.1.116 runs no engine on SM 9.0: it serves SM 7.5, 8.0, 8.6, 8.9, "
        "12.0, 12.1 and later; tensorrt: not installed"
    )
    assert run.fix[0].endswith("install 'tensorrt<12'")
    support = check_target(seen, "current")
    assert (support.build.works, support.run.works) == (False, False)
    assert support.build.fix == support.run.fix == run.fix
    other = check_target(seen, "rtx-4090")
    assert (other.build.works, other.run.works) == (True, False)
    both = {**found, "tensorrt": Package("tensorrt", "10.13.3", None)}
    seen = dataclasses.replace(seen, packages=both)
    support = check_target(seen, "current")
    assert (support.build.works, support.run.works) == (True, True)
    assert support.run.why == "tensorrt through cuda_bindings"


def test_a_target_that_only_tensorrt_serves_is_not_run_by_rtx(desktop):
    ada = {**CARD, "name": "NVIDIA H100 80GB HBM3", "sm": "9.0"}
    found = packages(ada, tensorrt_rtx="1.7.1", polygraphy="0.53", cuda_bindings="13.0.1")
    support = check_target(examine(desktop, found), "h100")
    assert not support.run.works
    assert support.run.why == "tensorrt: not installed"


def test_a_card_that_an_older_rtx_does_not_name_needs_a_newer_one(desktop):
    found = packages(CARD, tensorrt_rtx="1.0", polygraphy="0.53")
    older = {"capabilities": ["7.5", "8.0", "8.6", "8.9", "12.0"]}
    found["tensorrt_rtx"] = dataclasses.replace(found["tensorrt_rtx"], details=older)
    build = check_target(examine(desktop, found), "sm121").build
    assert not build.works
    assert "builds for SM 7.5, 8.0, 8.6, 8.9, 12.0, not 12.1" in build.why


def test_engines_run_through_the_binding_that_is_tried_first(desktop):
    found = packages(CARD, tensorrt_rtx="1.7.1", pycuda="2024.1.2", cuda_bindings="13.0.1")
    ability = by_name(list_abilities(examine(desktop, found)), "run engines")
    assert ability.why == "tensorrt_rtx through cuda_bindings"
    assert next(iter(BINDINGS)) == "cuda-python"


def test_a_jetson_cannot_be_served_from_a_desktop(desktop):
    found = packages(CARD, tensorrt="11.4.1", polygraphy="0.53.6", pycuda="2024.1.2")
    support = check_target(examine(desktop, found), "jetson-agx-orin")
    assert not support.build.works
    assert "is SM 8.7, this machine's GPU is SM 8.9" in support.build.why
    assert support.build.fix[0].startswith("swise-build FILE.onnx --target jetson-agx-orin")


def test_without_a_gpu_current_cannot_be_served(tmp_path):
    seen = examine(lay_out(tmp_path, {}, {}), packages(tensorrt_rtx="1.7.1", polygraphy="0.53"))
    support = check_target(seen, "current")
    assert not support.build.works
    assert "this machine has no GPU: no NVIDIA driver" in support.build.why


def test_a_misspelt_target_is_refused_with_the_nearest(desktop):
    with pytest.raises(InputError, match="Did you mean 'rtx-4090'"):
        check_target(examine(desktop, packages(CARD)), "rtx_4090")


def test_two_onnx_runtimes_at_once_are_reported_with_the_commands_that_keep_one(
    tmp_path, monkeypatch
):
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / f"{name}-1.23.0.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: 1.23.0\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    seen = examine(lay_out(tmp_path, {}, {}), packages())
    advice = list_advice(seen)[0]
    assert "onnxruntime and onnxruntime-gpu" in advice.what
    assert [command.partition("pip ")[2] for command in advice.fix] == [
        "uninstall -y onnxruntime onnxruntime-gpu",
        "install --no-deps onnxruntime-gpu",
    ]
    fact = seen.fact("python", "onnxruntime_packages")
    assert fact.value == "onnxruntime 1.23.0, onnxruntime-gpu 1.23.0"


def test_a_jetson_is_told_where_an_onnx_runtime_for_its_gpu_is(jetson, tmp_path):
    found = packages()
    found["onnxruntime"] = Package("onnxruntime", None, "No module named 'onnxruntime'")
    name = "upscale and benchmark ONNX files"
    (fix,) = by_name(list_abilities(examine(jetson, found)), name).fix
    assert fix.endswith("or onnxruntime-gpu of the Jetson AI Lab's index, jp6/cu126")
    (tmp_path / "other").mkdir()
    elsewhere = examine(lay_out(tmp_path / "other", {}, {}), found)
    assert "Jetson" not in by_name(list_abilities(elsewhere), name).fix[0]


@pytest.mark.parametrize(
    ("package", "extra"),
    [("openvino", "openvino"), ("ncnn", "ncnn"), ("av", "video")],
)
def test_an_absent_package_has_its_purpose_and_its_command(tmp_path, package, extra):
    seen = examine(lay_out(tmp_path, {}, {}), packages())
    fact = seen.fact("python", package)
    assert fact.is_absent
    assert str(fact.reason).startswith("not installed; for ")
    (ability,) = (a for a in list_abilities(seen) if a.why == f"{package}: not installed")
    assert ability.fix[0].endswith(install_command(extra, pip=""))


def test_an_empty_machine_is_unknown_with_reasons_never_zero(tmp_path):
    seen = examine(lay_out(tmp_path, {}, {}), packages())
    assert seen.fact("machine", "memory_mib").reason == "/proc/meminfo does not exist"
    assert seen.fact("gpu", "name").reason == "no NVIDIA driver is visible here"
    facts = [fact for section in seen.sections.values() for fact in section]
    assert all((fact.value is None) != (fact.reason is None) for fact in facts)


def test_a_fact_needs_a_value_or_a_reason():
    with pytest.raises(ValueError, match="give a value or the reason"):
        Fact("memory_mib")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\necho 'not root' >&2\nexit 3\n", "nvpmodel failed with 3: not root"),
        ("#!/no/such/shell\n", "nvpmodel: No such file or directory"),
    ],
)
def test_a_command_that_fails_gives_its_own_words(tmp_path, script, reason):
    machine = lay_out(tmp_path, {}, {"nvpmodel": ""})
    (tmp_path / "bin" / "nvpmodel").write_text(script)
    assert observe("mode", lambda: machine.output_of("nvpmodel", "-q")).reason == reason


def test_a_command_that_never_ends_is_stopped_after_its_first_line(tmp_path):
    machine = lay_out(tmp_path, {}, {"tegrastats": ""})
    (tmp_path / "bin" / "tegrastats").write_text("#!/bin/sh\necho RAM\nexec /bin/sleep 600\n")
    begun = time.perf_counter()
    assert machine.first_line_of("tegrastats") == "RAM\n"
    assert time.perf_counter() - begun < 60


def test_a_silent_command_is_unknown(tmp_path):
    machine = lay_out(tmp_path, {}, {"tegrastats": ""})
    (tmp_path / "bin" / "tegrastats").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    with pytest.raises(UnobservableError, match="tegrastats printed nothing in 1 s"):
        machine.first_line_of("tegrastats")


def test_an_absent_command_is_named(tmp_path):
    machine = lay_out(tmp_path, {}, {})
    with pytest.raises(UnobservableError, match="nvpmodel is not on the PATH"):
        machine.output_of("nvpmodel", "-q")


def test_every_backend_is_probed_in_a_real_process():
    found = probe_packages()
    assert found["onnxruntime"].works
    providers = found["onnxruntime"].details["providers"]
    assert isinstance(providers, list)
    assert "CPUExecutionProvider" in providers
    for backend in found.values():
        assert backend.works != bool(backend.error), backend
    if found["tensorrt_rtx"].works:
        capabilities = found["tensorrt_rtx"].details["capabilities"]
        assert isinstance(capabilities, list)
        assert {"8.6", "8.9", "12.0"} <= set(capabilities)


def test_a_backend_that_kills_its_process_is_reported(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    backend = probe_package("tensorrt")
    assert not backend.works
    assert "importing it ended with -11" in str(backend.error)


def test_a_backend_whose_library_is_broken_gives_the_loaders_words(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text(
        "import ctypes\nctypes.CDLL('libnvinfer.so.does-not-exist')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "libnvinfer.so.does-not-exist" in str(probe_package("tensorrt").error)


# A driver with the C interface of libcuda, so that the calls themselves are tried without a GPU.
LIBCUDA = """
#include <string.h>
#include <stddef.h>
#ifndef STATUS
#define STATUS 0
#endif
int cuInit(unsigned flags) { return STATUS; }
int cuDriverGetVersion(int *v) { *v = 12060; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *name, int size, int d) { strncpy(name, "Orin", size); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int d) { *bytes = (size_t)7619 << 20; return 0; }
int cuDeviceGetAttribute(int *v, int what, int d) {
  *v = what == 75 ? 8 : what == 76 ? 7 : what == 18 ? 1 : -1; return 0;
}
int cuGetErrorString(int s, const char **t) { *t = "no CUDA-capable device is detected"; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize(("status", "works"), [(0, True), (100, False)])
def test_the_cuda_driver_is_called_through_its_c_interface(tmp_path, monkeypatch, status, works):
    (tmp_path / "cuda.c").write_text(LIBCUDA)
    library = str(tmp_path / "libcuda.so.1")
    source = str(tmp_path / "cuda.c")
    compiler = shutil.which("cc")
    assert compiler is not None
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-w", f"-DSTATUS={status}", "-o", library, source],
        check=True,
    )
    paths = [str(tmp_path), os.environ.get("LD_LIBRARY_PATH", "")]
    monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(path for path in paths if path))
    backend = probe_package("cuda")
    if works:
        assert backend.version == "12.6"
        assert backend.details["devices"] == [ORIN_GPU]
    else:
        assert backend.error == "CUDA error 100: no CUDA-capable device is detected"


def test_this_machine_is_examined_whole():
    seen = examine(this_machine())
    assert str(seen.fact("python", "python").value).startswith(sys.version.split()[0])
    memory_mib = seen.fact("machine", "memory_mib").value
    assert isinstance(memory_mib, int | float)
    assert memory_mib > 0
    assert by_name(list_abilities(seen), "upscale and benchmark ONNX files").works
