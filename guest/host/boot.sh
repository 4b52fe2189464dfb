#!/bin/sh
# `make run` and `make linux` after the build: brings what the run needs from Debian's archive and boots it.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh

image=target/faultline${BUG:+-$BUG}.img
if [ "${BOARD:-virt}" = raspi4b ]; then guest/linux/fetch.sh raspi4b.dtb </dev/null; fi

if [ "$1" = linux ]; then
    # The person's own kernel and ramdisk take the place of Debian's, which are not fetched then.
    if [ -z "${LINUX:-}" ]; then guest/linux/fetch.sh Image </dev/null; fi
    if [ -z "${INITRD:-}" ]; then guest/linux/fetch.sh busybox </dev/null && guest/linux/initramfs.sh; fi
    GUEST=$(locate "${LINUX:-$PWD/target/linux/Image}")
    INITRD=${INITRD:-$PWD/target/linux/initramfs.gz}
    case $GUEST in /*) ;; *) GUEST=./$GUEST ;; esac
    # When a pipe on stdin ends, so does the shell: a new line, `exit`, and Ctrl-D for what is not a shell.
    EOF_KEYS='\nexit\n\004'
    export GUEST INITRD EOF_KEYS DOMAIN=linux
fi
IMAGE=$image exec guest/host/run.sh
