#!/bin/sh
# Writes target/linux/initramfs.gz: BusyBox, our /init and the workload, as a cpio archive in the "newc" form
# (Linux: Documentation/driver-api/early-userspace/buffer-format.rst). Needs neither root nor a cpio program.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
out=target/linux/initramfs.gz
[ -n "$(find "$out" -newer guest/linux/init -newer guest/linux/workload -newer guest/linux/soak \
    -newer guest/linux/initramfs.sh -newer target/linux/busybox -newer target/linux/code_changes \
    -newer target/linux/samples 2>/dev/null)" ] && exit 0

inode=0
# header NAME MODE SIZE [MAJOR MINOR]: mode in octal, as in stat(2).
header() {
    inode=$((inode + 1))
    printf '070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\0' \
        $inode $((0$2)) 0 0 1 0 "$3" 0 0 "${4:-0}" "${5:-0}" $((${#1} + 1)) 0 "$1"
    pad $((110 + ${#1} + 1))
}

pad() { # SIZE: zeros to the next multiple of four
    case $(($1 % 4)) in
        1) printf '\0\0\0' ;;
        2) printf '\0\0' ;;
        3) printf '\0' ;;
    esac
}

folder() { header "$1" 40755 0; }
device() { header "$1" 20600 0 "$2" "$3"; }
file() { # NAME SOURCE
    size=$(($(wc -c <"$2")))
    header "$1" 100755 "$size"
    cat "$2"
    pad "$size"
}

{
    for name in bin dev proc sys tmp root etc; do folder "$name"; done
    device dev/console 5 1
    file init guest/linux/init
    file bin/busybox target/linux/busybox
    file bin/workload guest/linux/workload
    file bin/soak guest/linux/soak
    file bin/code_changes target/linux/code_changes
    file bin/samples target/linux/samples
    header 'TRAILER!!!' 0 0
} | gzip -9n >"$out.part.$$"
mv "$out.part.$$" "$out"
