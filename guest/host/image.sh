#!/bin/sh
# `make image`: the flat image, for a board or a boot loader. Never a known-bad build.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
case "${BUG:-}${FAULTLINE_BUG:-}${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}${CARGO_BUILD_RUSTFLAGS:-}" in
    *?*)
        [ -z "${BUG:-}${FAULTLINE_BUG:-}" ] || refuse "image: a known-bad build (BUG=${BUG:-$FAULTLINE_BUG}) is for tests, never for an image"
        case "${RUSTFLAGS:-}${CARGO_ENCODED_RUSTFLAGS:-}${CARGO_BUILD_RUSTFLAGS:-}" in
            *faultline_bug*) refuse "image: a known-bad build (--cfg faultline_bug) is for tests, never for an image" ;;
        esac
        ;;
esac
guest/host/setup.sh
guest/host/build.sh hypervisor
say image "target/faultline.img, $(($(wc -c <target/faultline.img) / 1024)) KiB: boots at EL2, 2 MiB aligned, device tree in x0"
