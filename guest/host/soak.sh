#!/bin/sh
# `make soak`: an hour of virtual time for Linux with two vCPUs: its workload again and again, and clocks that must agree.
# The case of `make test-all` alone.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
guest/host/setup.sh </dev/null
guest/host/build.sh hypervisor guests </dev/null
guest/linux/fetch.sh Image busybox </dev/null && guest/linux/initramfs.sh
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/host-tests}
export CARGO_TARGET_DIR FAULTLINE_QEMU=all
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
say soak "an hour of the guest's time"
exec cargo test -q --test qemu -- soaks
