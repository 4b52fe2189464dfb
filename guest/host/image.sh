#!/bin/sh
# `make image`: the flat image, for a board or a boot loader. Never a known-bad build.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/options.sh
bug=${BUG:-${FAULTLINE_BUG:-}}
case ${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}${CARGO_BUILD_RUSTFLAGS:-} in
    *faultline_bug*) bug=${bug:---cfg faultline_bug} ;;
esac
[ -z "${POISON:-}" ] || refuse "image: POISON=$POISON is for tests, never for an image"
[ -z "$bug" ] || refuse "image: a known-bad build ($bug) is for tests, never for an image"
check_machine
guest/host/setup.sh
guest/host/build.sh hypervisor
[ -z "${EARLYCON:-}" ] || put_early_console target/faultline.img "$EARLYCON"
say image "target/faultline.img, $(($(wc -c <target/faultline.img) / 1024)) KiB: boots at EL2, 2 MiB aligned, device tree in x0"
