#!/bin/sh
# `make bench`: what things cost, in instructions, on the machine of CPU= and GIC=. docs/bench.md defines each name.
#
#   FORMAT=table|json   json: standard output is one JSON object of name to instructions
#   WHAT=linux          Linux's boot and a workload instead, against the machine without a hypervisor (bench-linux.sh)
#
# Everything is counted under QEMU's -icount, where one nanosecond of guest time is one executed instruction, so the
# numbers are the same on every host. Each group of names has a boot of its own: a guest (guest/bench) that measures, with
# the policy, memory and CPUs that its names are about.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/options.sh
check_machine
check_qemu
case ${WHAT:-} in
    '') ;;
    linux)
        guest/linux/fetch.sh Image busybox </dev/null && guest/linux/initramfs.sh
        exec guest/host/bench-linux.sh
        ;;
    *) refuse "WHAT=$WHAT: must be linux, or left out" ;;
esac
FORMAT=${FORMAT:-table}
check_word FORMAT "$FORMAT" table json
[ "$BOARD" = virt ] || refuse "BOARD=$BOARD: icount needs QEMU's virt"

export ICOUNT="-accel tcg,thread=single -icount shift=0,sleep=off -seed 1 -rtc base=2026-01-01,clock=vm"
folder=$(mktemp -d target/bench.XXXXXX)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT

. guest/host/plugin.sh

# boot NAMES VARIABLE=value...: measures NAMES; what was measured goes to $folder/results.
boot() {
    names=$1
    shift
    say measure "$names"
    if ! env GUEST=bench CPU="$CPU" GIC="$GIC" QEMU="$QEMU" SEED=1 EPOCH=1767225600 TIMEOUT=120 LOG="$folder/log" \
        QEMU_ARGS="$ICOUNT${plugin:+ $plugin}" APPEND="bench=$names" "$@" guest/host/run.sh \
        </dev/null >"$folder/console" 2>"$folder/complaints"; then
        tail -n 30 "$folder/console" >&2
        cat "$folder/complaints" >&2
        refuse "bench: the guest did not get through (see above)"
    fi
    tr -d '\r' <"$folder/console" | sed -n 's/^bench \([a-z0-9_]* [0-9]*\)$/\1/p' >>"$folder/results"
}

# The same guest on the bare machine: what interrupts cost without any hypervisor.
boot_bare() {
    say measure "$1 without a hypervisor"
    # shellcheck disable=SC2086  # a list of arguments
    timeout 60 "$QEMU" -M "virt,gic-version=$GIC" -cpu "$CPU" -m 256M -nic none -display none -serial stdio $ICOUNT \
        -kernel target/guest/bench.bin -append "bench=$1" </dev/null 2>/dev/null |
        tr -d '\r' | sed -n 's/^bench \([a-z0-9_]*\) \([0-9]*\)$/bare_\1 \2/p' >>"$folder/results"
}

faults=translation_4k,permission_write,permission_exec
exits=hypercall,psci_call,id_register,mmio_read,mmio_write,uart_flag,uart_write,distributor_read,distributor_write,inject
interrupts=timer_late,wfi_wake,irq_ack_eoi,sgi_self
boot "$exits,$interrupts"
boot_bare "$interrupts"
boot sgi SMP=2 VCPUS=2
for name in sgi_same_cpu vcpu_switch vcpu_switch_fp lock_turn; do boot $name SMP=1 VCPUS=2; done
boot sufficient SMP=2 VCPUS=2 RIGHTS=lazy GRANULE=4k
boot translation_2m GRANULE=2m MEM=3G GUEST_MEM=2304M
plugin=$(plugin_with "$folder/counts" histogram=on)
boot "$faults" RIGHTS=lazy GRANULE=4k
plugin=
# The log says whether data caches need cleaning for new code at all.
to_unification=$(per_call dc)
if grep -q 'IDC 1' "$folder/console"; then to_unification=0; fi
{
    echo "zero_4k $(per_call zero)"
    echo "clean_4k $(per_call dc)"
    echo "icache_4k $(($(per_call ic) + to_unification))"
} >>"$folder/results"

if [ "$FORMAT" = json ]; then
    grep -v '^bare_' "$folder/results" | awk '{ printf "%s\"%s\": %d", NR == 1 ? "{" : ", ", $1, $2 } END { print "}" }'
    exit 0
fi

# The table: in the order of known.txt.
case $CPU in
    max*) column=3 ;;
    *a35* | *a53* | *a57* | *a72*) column=1 ;;
    *) column=2 ;;
esac
awk -v column=$column -v title="$CPU, GICv$GIC" '
    function shown(n) { return (n == "-" || n == "") ? "" : n }
    FNR == NR { result[$1] = $2; next }
    /^#/ || NF == 0 { next }
    !head++ { printf "%-18s %20s %8s %8s %8s %8s\n", "instructions", title, "bare", "target", "KVM", "Xen" }
    ($1 in result) {
        printf "%-18s %20d %8s %8s %8s %8s%s\n", $1, result[$1], shown(result["bare_" $1]), shown($2),
            shown($(3 + column)), shown($(6 + column)), ($2 != "-" && result[$1] + 0 > $2 + 0) ? "  beyond its target" : ""
    }' "$folder/results" guest/bench/known.txt
