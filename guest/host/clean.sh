#!/bin/sh
# Removes what was built; keeps what was fetched (Debian's kernel, QEMU), which `rm -r target` removes too.
set -eu
cd "$(dirname "$0")/../.."
[ -d target ] || exit 0
find target -mindepth 1 -maxdepth 1 ! -name linux ! -name 'qemu-*' ! -name host -exec rm -rf {} +
rm -f target/host/toolchain target/linux/initramfs.gz
