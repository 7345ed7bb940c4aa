#!/bin/sh
# The base install on the processor of a Jetson: arm64, emulated by QEMU.
#
#   sudo apt-get install debootstrap qemu-user-static binfmt-support
#   sudo tests/arm64/run.sh FP16.onnx INT8.onnx
#
# Makes an arm64 Debian root, installs the wheel of this checkout and its base dependencies there,
# runs swise-doctor, swise-bench and swise-upscale on each artefact, and compares the pictures with
# the ones that this computer makes (compare.py states the tolerance). Needs root for chroot.
# Emulation says nothing about speed: the latencies it prints are not an arm64 device's.
#
#   PYTHON     a Python of this computer that has swise-deploy installed    default: python3
#   ARM64      folder for the root, kept between runs                       default: a cache folder
#   MIRROR     Debian mirror                                                default: deb.debian.org
#   PICTURE    what is upscaled                                             default: a drawn picture
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
repository=$(CDPATH='' cd -- "$here/../.." && pwd)
python=${PYTHON:-python3}
root=${ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/swise-deploy/arm64}
mirror=${MIRROR:-http://deb.debian.org/debian}
suite=bookworm

[ $# -gt 0 ] || { echo "give the ONNX files to run, e.g. x2_fp16.onnx x2_int8.onnx" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "chroot needs root: run this with sudo" >&2; exit 2; }
for tool in debootstrap qemu-aarch64-static update-binfmts; do
    command -v "$tool" > /dev/null || {
        echo "$tool is missing: apt-get install debootstrap qemu-user-static binfmt-support" >&2
        exit 3
    }
done

if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    mountpoint -q /proc/sys/fs/binfmt_misc || mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    update-binfmts --enable qemu-aarch64
fi
if [ ! -x "$root/usr/bin/python3" ]; then
    debootstrap --arch=arm64 --variant=minbase --include=python3,libgomp1 \
        "$suite" "$root" "$mirror"
fi

echo "== packages"
rm -rf "$root/wheels" "$root/swise" "$root/work"
mkdir -p "$root/wheels" "$root/work"
sources=$(mktemp -d)
(cd "$repository" && git ls-files -z --cached --others --exclude-standard | xargs -0 tar cf -) | tar xf - -C "$sources"
"$python" -m pip wheel -qq --no-deps --wheel-dir "$root/wheels" "$sources"
rm -rf "$sources"
minor=$(chroot "$root" python3 -c 'import sys; print(sys.version_info.minor)')
"$python" -m pip download -qq --dest "$root/wheels" --only-binary :all: \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux2014_aarch64 --python-version "3.$minor" --find-links "$root/wheels" \
    pip 'swise-deploy[cpu,tensorrt]' 'cuda-bindings<13'  # what a marker chooses on aarch64
# pip runs from its own wheel: unpacking it with ensurepip takes minutes under emulation.
chroot "$root" /bin/sh -eu -c '
    mkdir /swise
    pip=$(echo /wheels/pip-*.whl)
    python3 "$pip/pip" install --quiet --no-index --find-links /wheels --no-compile \
        --root-user-action ignore --target /swise "swise-deploy[cpu,tensorrt]"
'
in_arm64() { # the main of a swise module, in the root
    module=$1
    shift
    unshare --mount sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" \
        /usr/bin/env PYTHONPATH=/swise HOME=/work PYTHONDONTWRITEBYTECODE=1 \
        python3 -c "import sys; from $module import main; sys.exit(main(sys.argv[1:]))" "$@"
}
chroot "$root" python3 -c 'import platform; print(platform.machine(), platform.python_version())'

echo "== swise-doctor"
in_arm64 swise_engines.doctor.cli

how="--runner onnxruntime --threads 1 --quiet" # the same runner on both, whatever else is there
picture=${PICTURE:-$root/work/picture.png}
[ -n "${PICTURE:-}" ] || "$python" "$here/compare.py" draw "$picture"
[ "$picture" = "$root/work/picture.png" ] || cp "$picture" "$root/work/picture.png"
for artefact in "$@"; do
    name=$(basename "$artefact" .onnx)
    cp "${artefact%.onnx}".* "$root/work/"
    echo "== $name: swise-upscale"
    "$python" -c 'import sys; from swise_engines.upscaling.cli import main; sys.exit(main(sys.argv[1:]))' \
        "$picture" --model "$artefact" -o "$root/work/$name.here.png" $how
    in_arm64 swise_engines.upscaling.cli \
        /work/picture.png --model "/work/$name.onnx" -o "/work/$name.arm64.png" $how
    "$python" "$here/compare.py" compare "$root/work/$name.here.png" "$root/work/$name.arm64.png"
    echo "== $name: swise-bench (emulated)"
    in_arm64 swise_bench.cli "/work/$name.onnx" --size 16x12 --threads 1 --runs 1 --seconds 0.1
done
