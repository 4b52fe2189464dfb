#!/bin/sh
# Refuses impossible variables in one line, before anything is fetched, built or started.
#
#   check.sh run | linux | machine
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. guest/host/options.sh

# No known-bad build but those that Cargo.toml lists.
if [ -n "${BUG:-}" ]; then
    known=$(sed -n "s/.*cfg(faultline_bug, values(\(.*\)))'.*/\1/p" Cargo.toml | tr -d '",')
    # shellcheck disable=SC2086  # a list of names
    check_word BUG "$BUG" $known
fi

check_machine
case $1 in
    run) check_guest ;;
    linux)
        for name in GUEST VMS; do
            eval "value=\${$name:-}"
            [ -z "$value" ] || refuse "$name=$value: is for \`make run\`; \`make linux\` takes LINUX=Image and INITRD="
        done
        if [ -n "${LINUX:-}" ]; then check_file LINUX "$LINUX"; fi
        # The kernel may not be here yet: any file stands for it.
        GUEST=guest/linux/init
        check_guest
        ;;
    machine) ;;
esac
# On a machine that has no QEMU yet, run.sh looks again after the set-up.
program=${QEMU:-qemu-system-aarch64}
if [ -n "${QEMU:-}" ] || command -v "$program" >/dev/null || [ -x target/qemu-release/qemu ]; then check_qemu; fi
