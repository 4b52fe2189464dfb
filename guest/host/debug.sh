#!/bin/sh
# `make debug`: QEMU stopped at reset, the console on a socket, gdb with EL2's symbols and the project's commands.
#
# All variables of `make run` count. GDB_SCRIPT=file runs gdb's commands from a file and ends, asking nothing. QEMU ends
# with gdb.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
folder=$(mktemp -d /tmp/faultline-debug.XXXXXX)
runner=
cleanup() {
    [ -z "$runner" ] || kill "$runner" 2>/dev/null || true
    wait
    rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 143' TERM HUP
# Ctrl-C is gdb's, where it stops the machine; QEMU, in a session of its own, does not hear it.
trap '' INT

image=target/faultline${BUG:+-$BUG}
if [ "${BOARD:-virt}" = raspi4b ]; then guest/linux/fetch.sh raspi4b.dtb; fi
TIMEOUT=${TIMEOUT:-0} IMAGE=$image.img CONSOLE=$folder/console \
    QEMU_ARGS="-S -gdb unix:$folder/gdb,server=on,wait=off" setsid guest/host/run.sh </dev/null &
runner=$!
while [ ! -S "$folder/gdb" ]; do
    kill -0 "$runner" 2>/dev/null || { runner=; exit 4; }
    sleep 0.1
done

say console "$folder/console  (another terminal: socat -,raw,echo=0,escape=0x1d unix:$folder/console)"
say gdb "stopped at reset; \`continue\` starts the machine, \`help faultline\` lists the project's commands"
set -- -q -ex "set confirm off" -ex "set architecture aarch64"
[ -z "${GDB_SCRIPT:-}" ] || set -- -nx -batch "$@"
set -- "$@" -x src/el2/gdb.py -ex "exec-file $image.elf" -ex "target remote $folder/gdb" -ex "faultline load $image.elf"
[ -z "${GDB_SCRIPT:-}" ] || set -- "$@" -x "$(locate "$GDB_SCRIPT")"
gdb-multiarch "$@"
