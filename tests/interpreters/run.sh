#!/bin/sh
# The base install on other Pythons: JetPack 6 has 3.10, JetPack 7 has 3.12.
#
#   tests/interpreters/run.sh [PYTHON...]     default: python3.10 python3.12
#
# Each gets a fresh virtual environment with the wheel of this checkout and its base dependencies,
# then imports what a device runs and starts the commands, without torch. WORK keeps the folders.
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
work=${WORK:-$(mktemp -d)}
[ $# -gt 0 ] || set -- python3.10 python3.12

mkdir -p "$work/source" # built outside the checkout, which stays clean
(cd "$repository" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf -) | tar xf - -C "$work/source"

for python in "$@"; do
    version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
    echo "== Python $version"
    environment=$work/python-$version
    "$python" -m venv --clear "$environment"
    "$environment/bin/pip" install --quiet "$work/source[cpu]"
    (
        cd "$work"
        "$environment/bin/python" -c '
import importlib.util, sys
for module in ("torch", "safetensors", "tensorrt", "pycuda"):
    assert importlib.util.find_spec(module) is None, module
for module in ("swise_export.runtimes.onnxruntime", "swise_engines.upscaling.upscaler", "swise_engines.upscaling.cli",
               "swise_bench.cli", "swise_engines.building.cli", "swise_engines.doctor.cli"):
    importlib.import_module(module)
    print("imports", module)
'
        for command in swise-doctor swise-bench swise-upscale swise-build; do
            "$environment/bin/$command" --help | head -n 1
        done
        "$environment/bin/swise-doctor"
        du -sh "$environment" | sed 's/\t.*/ in all/'
    )
done
