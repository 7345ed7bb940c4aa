"""The sh script that runs trtexec on a device, and the text that goes with it.

It needs nothing but sh, coreutils and trtexec. Options that came with later releases are used where
`trtexec --help` names them.
"""

import shlex
from collections.abc import Mapping

from swise_deploy.precision import Precision

MAX_ARGUMENT_BYTES = 120_000
"""Linux takes 131,072 bytes in one argument."""


def precision_options(precisions: Mapping[str, Precision], *, has_int8: bool) -> list[str]:
    """Options of trtexec that set the precision of every layer.

    Args:
        precisions: Of each floating-point node, by its name.
        has_int8: Whether the graph has Q/DQ nodes.
    """
    options = [*(["--int8"] if has_int8 else [])]
    if "fp16" not in precisions.values():
        return [*options, "--noTF32"]
    pairs = ",".join(f"{name}:{precision}" for name, precision in precisions.items())
    lists = [f"--layerPrecisions={pairs}", f"--layerOutputTypes={pairs}"]
    if max(map(len, lists)) > MAX_ARGUMENT_BYTES:
        return [*options, "--fp16"]
    return [*options, "--fp16", "--noTF32", "--precisionConstraints=obey", *lists]


def run_script(input_name: str, options: list[str]) -> str:
    """Text of run.sh."""
    fixed = [option for option in options if option not in _OPTIONAL]
    constraints = [o for o in fixed if o.startswith(("--precisionC", "--layer"))]
    plain = [o for o in fixed if o not in constraints]
    return (
        _SCRIPT.replace("@PLAIN@", " ".join(map(shlex.quote, plain)))
        .replace("@CONSTRAINTS@", " ".join(map(shlex.quote, constraints)))
        .replace("@INPUT@", shlex.quote(f"{input_name}:input.raw"))
    )


_OPTIONAL = ("--noTF32",)

_SCRIPT = """\
#!/bin/sh
# Builds the engine with trtexec, times it, and writes everything into results/.
# Usage: sh run.sh            (TRTEXEC=/path/to/trtexec where it is elsewhere)
# Set the power mode and lock the clocks first: sudo nvpmodel -m 0; sudo jetson_clocks
set -u
cd "$(dirname "$0")" || exit 1

trtexec=${TRTEXEC:-}
if [ -z "$trtexec" ]; then
    trtexec=$(command -v trtexec) || trtexec=/usr/src/tensorrt/bin/trtexec
fi
if [ ! -x "$trtexec" ]; then
    echo "no trtexec at $trtexec. Install TensorRT, or set TRTEXEC to its path" >&2
    exit 3
fi
rm -rf results.new
mkdir results.new || exit 1

help=$("$trtexec" --help 2>&1)
has() { # whether this trtexec knows an option
    case $help in
    *"$1"*) return 0 ;;
    *) return 1 ;;
    esac
}

state() { # power mode, clocks and temperatures, as far as this device shows them
    echo "== date"
    date -u
    for file in /proc/device-tree/model /etc/nv_tegra_release /sys/class/devfreq/*/cur_freq \\
        /sys/class/devfreq/*/min_freq /sys/class/devfreq/*/max_freq \\
        /sys/devices/gpu.0/devfreq/*/cur_freq /sys/class/thermal/thermal_zone*/temp; do
        if [ -r "$file" ]; then
            echo "== $file"
            tr -d '\\000' < "$file"
            echo
        fi
    done
    if command -v nvpmodel > /dev/null 2>&1; then
        echo "== nvpmodel"
        nvpmodel -q 2>&1
    fi
    if command -v nvidia-smi > /dev/null 2>&1; then
        echo "== nvidia-smi"
        nvidia-smi --query-gpu=name,compute_cap,clocks.sm,temperature.gpu --format=csv,noheader 2>&1
    fi
}

set -- @PLAIN@
has --noTF32 && set -- "$@" --noTF32
has --timingCacheFile && set -- "$@" --timingCacheFile=timing.cache

build() { # name of the log; options of the build
    log=$1
    shift
    "$trtexec" --onnx=model.onnx --saveEngine=results.new/model.engine "$@" \\
        --loadInputs=@INPUT@ --exportOutput=results.new/output.json \\
        --exportTimes=results.new/times.json \\
        --iterations=10 --duration=10 --warmUp=500 > "results.new/$log" 2>&1
}

state > results.new/before.txt
echo "building and timing: this takes minutes" >&2
constraints=none
if has --precisionConstraints; then
    constraints=obey
    build build.log "$@" @CONSTRAINTS@
    code=$?
    if [ "$code" != 0 ]; then
        echo "no engine obeys the precision of every layer: building without" >&2
        mv results.new/build.log results.new/build.obey.log
        constraints=none
        build build.log "$@"
        code=$?
    fi
else
    build build.log "$@"
    code=$?
fi
state > results.new/after.txt
echo "$constraints" > results.new/constraints.txt
if [ "$code" != 0 ]; then
    tail -n 5 results.new/build.log >&2
    echo "trtexec failed with $code: see results.new/build.log" >&2
    exit 1
fi

profile="--dumpProfile --exportProfile=results.new/profile.json"
has --separateProfileRun && profile="$profile --separateProfileRun"
# shellcheck disable=SC2086  # a list of options
"$trtexec" --loadEngine=results.new/model.engine $profile > results.new/profile.log 2>&1 ||
    echo "no profile of the layers: see results/profile.log" >&2

rm -rf results
mv results.new results
rm -f results/model.engine
echo "done. Copy this folder back, then: swise-bench FILE --trtexec-results FOLDER"
"""

README = """\
{title}

model.onnx        {network}, {precision}, for {width}x{height} pictures alone; opset 13
input.raw         one picture, float32, {shape}
reference.raw     its result in ONNX Runtime on the machine that wrote this folder
run.sh            builds an engine with trtexec, times it, and writes results/
swise.json        what the files are

1. Copy this folder to the device.
2. There: set the power mode and lock the clocks, such as
       sudo nvpmodel -m 0
       sudo jetson_clocks
   then
       sh run.sh
   It needs sh, coreutils and trtexec (/usr/src/tensorrt/bin/trtexec on a Jetson).
3. Copy the folder back. There:
       swise-bench FILE.onnx --trtexec-results FOLDER
   reports the latency beside that of FILE.onnx, and the PSNR between the device's picture and
   reference.raw.
"""
