#!/bin/sh
# Packs a Python 3.10 with TensorRT 8.6.0, this project's base dependencies and what the GPU checks
# need, for a GPU machine without a package index. TensorRT 8.6.0 is whole on the index (819 MB) and
# runs on SM 5.0 to 9.0; later wheels fetch their libraries when they are installed.
#
#   sh bench/scripts/gpu/pack_engine_python.sh DIR       about 10 minutes on two cores; DIR/part.00, ...
#   . DIR/unpack.sh                                  there, from a checkout; then: py310 -m ...
#
#   PYTHON310   a relocatable Python 3.10, such as pyenv's      default: the newest of pyenv
#   PART_MIB    size of a part                                  default: 36
#   PRESET      of xz; 0 is quick                               default: 6
set -eu

[ $# = 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
python=${PYTHON310:-}
if [ -z "$python" ]; then
    for found in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.10.*/bin/python3.10; do python=$found; done
fi
[ -x "$python" ] || { echo "no Python 3.10 at '$python': set PYTHON310" >&2; exit 3; }
prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir "$stage/python" "$stage/site"

# The interpreter without what nobody runs there.
tar -C "$prefix" -cf - --exclude='*.a' --exclude=__pycache__ --exclude=lib/python3.10/test \
    --exclude=lib/python3.10/site-packages --exclude=lib/python3.10/ensurepip \
    --exclude=lib/python3.10/idlelib bin lib | tar -C "$stage/python" -xf -
# The project's own dependencies, as pyproject.toml has them now; the project itself is a checkout.
"$python" -m pip install -q --no-compile --target "$stage/site" "${repository}[cpu,tensorrt]" \
    'numpy<2' pytest hypothesis
rm -rf "$stage"/site/swise_* "$stage"/site/bin
"$python" -m pip install -q --no-deps --no-compile --target "$stage/site" tensorrt==8.6.0
# TensorRT's plugin library, which no network here uses, links cuBLAS 12 and cuDNN 8: 2 GB. Stand-ins
# let it load; each of their functions answers "not initialised" (1).
for library in libcublas.so.12 libcublasLt.so.12 libcudnn.so.8; do
    nm -D --undefined-only "$stage/site/tensorrt/libnvinfer_plugin.so.8" |
        sed -n "s/.* U \([A-Za-z0-9_]*\)@$library\$/int \1(void) { return 1; }/p" > "$stage/standin.c"
    echo "$library { global: *; };" > "$stage/standin.map"
    gcc -shared -fPIC -w -o "$stage/site/tensorrt/$library" -Wl,-soname,"$library" \
        -Wl,--version-script="$stage/standin.map" "$stage/standin.c"
done
rm -f "$out"/part.*
tar -C "$stage" --sort=name -cf - python site |
    xz -T0 --block-size=96MiB "--lzma2=preset=${PRESET:-6},dict=64MiB" |
    split -b "${PART_MIB:-36}M" -d -a 2 - "$out/part."
cat > "$out/unpack.sh" <<'UNPACK'
# Source it from the root of a checkout: PARTS is the folder of the parts, ENGINE_PYTHON where they go.
parts=${PARTS:-/tmp/parts}
home=${ENGINE_PYTHON:-/tmp/engine-python}
if [ ! -x "$home/python/bin/python3.10" ]; then
    mkdir -p "$home" && cat "$parts"/part.* | xz -dc -T0 | tar -C "$home" -xf -
fi
packages="$home/python/lib/python3.10/site-packages"
mkdir -p "$packages"
printf '%s\n' "$home/site" "$PWD" "$PWD/export" "$PWD/engines" "$PWD/bench" > "$packages/rooms.pth"
export LD_LIBRARY_PATH="$home/python/lib:$home/site/tensorrt${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
py310() { "$home/python/bin/python3.10" "$@"; }
UNPACK
du -ch "$out"/part.* | tail -n 1
