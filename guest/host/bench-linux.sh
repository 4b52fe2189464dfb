#!/bin/sh
# `make bench WHAT=linux`: Debian's Linux under Faultline against the same machine without a hypervisor, in instructions:
# from its first one to user space, and over a workload (guest/linux/workload). Same kernel, ramdisk, command line and
# device tree.
#
#   FORMAT=table|json   json: standard output is one JSON object of name to number
#   GRANULE=…           how much one fault brings (default: the VM's default)
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/options.sh
check_machine
check_qemu
FORMAT=${FORMAT:-table}
check_word FORMAT "$FORMAT" table json
[ "$BOARD" = virt ] || refuse "BOARD=$BOARD: icount needs QEMU's virt"
. guest/host/plugin.sh

ICOUNT="-accel tcg,thread=single -icount shift=0,sleep=off -seed 1 -rtc base=2026-01-01,clock=vm"
words="nokaslr quiet RUN=workload"
mkdir -p target/host
folder=$(mktemp -d target/bench.XXXXXX)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT
plugin_build

# hosted GUEST VARIABLE=value...: a boot under Faultline, its console in $folder/console.
hosted() {
    env CPU="$CPU" GIC="$GIC" SMP="$SMP" QEMU="$QEMU" GUEST_MEM=256M SEED=1 EPOCH=1767225600 LOG="$folder/log" TIMEOUT=600 \
        GUEST="$@" guest/host/run.sh </dev/null >"$folder/console" 2>"$folder/complaints" || {
        tail -n 20 "$folder/console" >&2
        cat "$folder/complaints" >&2
        refuse "bench: it did not get through (see above)"
    }
}

counted() { # FILE NAME
    sed -n "s/^$2 //p" "$1"
}

say boot "the guest that shows its device tree"
export INITRD="$PWD/target/linux/initramfs.gz"
hosted bench APPEND=tree QEMU_ARGS="$ICOUNT"
printf '%b' "$(tr -d '\r' <"$folder/console" | sed -n 's/^tree //p' | tr -d '\n')" >"$folder/tree.dtb"

say boot "Linux without a hypervisor"
# shellcheck disable=SC2086  # lists of arguments
timeout 600 "$QEMU" -M "virt,gic-version=$GIC" -cpu "$CPU" -smp "${VCPUS:-1}" -m 256M -nic none -display none -serial stdio \
    -no-reboot $ICOUNT -plugin "$plugin_file,out=$folder/bare" -kernel target/linux/Image -initrd "$INITRD" \
    -dtb "$folder/tree.dtb" -append "$words" </dev/null >"$folder/console" 2>"$folder/complaints" || true
grep -q 'workload: PASS' "$folder/console" || {
    tail -n 20 "$folder/console" >&2
    refuse "bench: Linux without a hypervisor did not get through its workload (see above)"
}

say boot "Linux under Faultline"
# By itself, as what fails in the middle of a command ends nothing.
looks=$(looks)
hosted "$PWD/target/linux/Image" DOMAIN=linux APPEND="$words" QEMU_ARGS="$ICOUNT $(plugin_with "$folder/hosted" "looks=$looks")"
grep -q 'workload: PASS' "$folder/console" || refuse "bench: Linux did not get through its workload"

awk -v format="$FORMAT" '
    { n[FILENAME ~ /bare$/ ? "bare" : "hosted", $1] = $2 }
    END {
        bare_boot = n["bare", "all_user"] - n["bare", "all_first"]
        boot = n["hosted", "all_user"] - n["hosted", "all_first"]
        boot_el2 = n["hosted", "el2_user"] - n["hosted", "el2_first"]
        bare_all = n["bare", "all"] - n["bare", "all_first"]
        all = n["hosted", "all"] - n["hosted", "all_first"]
        el2 = n["hosted", "el2"] - n["hosted", "el2_first"]
        if (format == "json") {
            printf "{\"linux_boot_bare\": %.0f, \"linux_boot\": %.0f, \"linux_boot_el2\": %.0f, ", bare_boot, boot, boot_el2
            printf "\"linux_all_bare\": %.0f, \"linux_all\": %.0f, \"linux_all_el2\": %.0f, ", bare_all, all, el2
            printf "\"linux_longest_el2\": %.0f}\n", n["hosted", "longest"]
            exit
        }
        printf "%-28s %14s %14s %10s %10s\n", "instructions", "bare", "Faultline", "ratio", "at EL2"
        printf "%-28s %14.0f %14.0f %10.4f %9.3f%%\n", "boot to user space", bare_boot, boot, boot / bare_boot, 100 * boot_el2 / boot
        printf "%-28s %14.0f %14.0f %10.4f %9.3f%%\n", "boot, workload and off", bare_all, all, all / bare_all, 100 * el2 / all
        printf "%-28s %14s %14.0f\n", "longest at EL2 in one go", "", n["hosted", "longest"]
    }' "$folder/bare" "$folder/hosted"
