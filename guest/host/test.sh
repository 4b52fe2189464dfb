#!/bin/sh
# The gate: `make test`, on a desk and in CI alike. Form, lint, host tests, documentation, then QEMU.
#
#   test.sh [all]      all: the whole QEMU matrix, or with PART=k/n every n-th case of it from the k-th on
#
# Every step runs, whatever the one before it did; what failed is shown when it fails. The last line is
# `N passed, N failed`, tests and checks added up; before it `left out: ...` when something was. Exit code 0 or 1.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. target/host/toolchain
triple=aarch64-unknown-none-softfloat log=target/host/test.log passed=0 failed=0 left_out=

# The tests choose their own machines; of the person's variables only the QEMU counts.
[ -z "${QEMU:-}" ] || QEMU=$(command -v "$(locate "$QEMU")") || refuse "QEMU=$QEMU: there is no such program"
for name in BOARD GIC CPU SMP MEM GUEST INITRD APPEND GUEST_MEM VCPUS PIN VMS RIGHTS GRANULE RESIZE REBOOT SEED EPOCH TIMEOUT LINUX BUG POISON; do
    unset $name
done

# The gate is always whole.
if [ "${1:-}" != all ] || [ -z "${PART:-}" ]; then unset PART; fi
case ${PART:-1/1} in
[1-9]*/[1-9]*) ;;
*) refuse "PART=$PART is not k/n, as in PART=3/20: 1 is the first part, n the last" ;;
esac

# check NAME COMMAND...: one step that passes or fails as a whole.
check() {
    name=$1
    shift
    say check "$name"
    if "$@" >"$log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        head -n 100 "$log" >&2
        say FAILED "$name"
    fi
}

# tests NAME COMMAND...: one step that is many tests and counts them itself.
tests() {
    name=$1
    shift
    say test "$name"
    # Our own harness tells of each boot as it ends: minutes, so they are shown while they pass.
    { "$@" 2>&1 && echo 0 >"$log.code" || echo 1 >"$log.code"; } | tee "$log" |
        { grep --line-buffered -E '^ *[0-9]+/[0-9]+ ' >&2 || true; }
    code=$(cat "$log.code")
    good=$(counted passed) bad=$(counted failed)
    # A run that ended badly, or tested nothing, is a failure even where no test says so.
    if [ "$bad" = 0 ] && { [ $code != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
    passed=$((passed + good)) failed=$((failed + bad))
    left_out=$left_out$(sed -n 's/^left out: /; /p' "$log")
    if [ "$bad" != 0 ]; then
        grep -vE '^test .* ok$|^ *[0-9]+/[0-9]+ .* ok ' "$log" >&2 || true
        say FAILED "$name"
    fi
}

# Sums `N passed` or `N failed` over the result lines of cargo's harness and of ours.
counted() {
    awk -v word="$1" '/^test result: |^[0-9]+ passed, [0-9]+ failed$/ {
        gsub(/[;,.]/, "")
        for (i = 2; i <= NF; i++) if ($i == word) n += $(i - 1)
    } END { print n + 0 }' "$log"
}

. guest/host/desk.sh

# with SUBCOMMAND WHAT...: sets $rust to a cargo that has the subcommand; a minimal rustup has neither fmt nor clippy.
with() {
    rust=$host
    "$rust" "$1" --version >/dev/null 2>&1 || rust=debian_cargo
    "$rust" "$1" --version >/dev/null 2>&1 || {
        left_out="$left_out; $2 (no cargo $1 here)"
        return 1
    }
}

# Clippy on the machine's code, by the Rust that builds it.
lint_target() { # FOLDER TARGET_FOLDER ARGUMENTS...
    (
        cd "$1"
        export CARGO_TARGET_DIR="$2"
        shift 2
        case $cargo in /usr/bin/*) cargo=debian_cargo ;; esac
        if [ -n "$build_std" ]; then export RUSTC_BOOTSTRAP=1; fi
        # shellcheck disable=SC2086  # a list of flags
        "$cargo" clippy -q --release --target $triple $build_std "$@" -- -D warnings
    )
}

long_model() {
    FAULTLINE_MODEL_STEPS=200000 "$host" test -q --lib machine::tests::model
}

if with fmt form; then
    check "form (rustfmt)" "$rust" fmt --check
    check "form of the guests" "$rust" fmt --manifest-path guest/Cargo.toml --check
fi
if with clippy lint; then
    check "lint (clippy)" "$rust" clippy -q --lib --tests -- -D warnings
    check "lint of the machine" lint_target . "$PWD/target/$toolchain" --bin faultline
    check "lint of the guests" lint_target guest "$PWD/target/guest-$toolchain" --bins --examples
fi
# The gate is the same every time; the whole matrix looks further, with a seed of its own that a failure prints.
if [ "${1:-}" != all ]; then export PROPTEST_RNG_SEED=20261123; fi
tests "on this machine" "$host" test -q --no-fail-fast
# Every order of the lock-free steps: src/sync.rs. Another configuration of all crates, so a folder of its own.
every_order() {
    RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$PWD/target/loom" "$host" test -q --lib loom_
}
tests "every order (loom)" every_order
if [ "${1:-}" = all ]; then
    tests "deliberate bugs" "$host" test -q --test mutants
    tests "the hardware model, longer" long_model
else
    tests "deliberate bugs, five of them" "$host" test -q --test mutants -- quick
fi
RUSTDOCFLAGS="-D warnings"
export RUSTDOCFLAGS
check "documentation" "$host" doc -q --no-deps --document-private-items --lib

check "the image, the guests" guest/host/build.sh hypervisor guests
# Side by side: each is one long step of one thread.
special_images() {
    env BUG=map-on-permission guest/host/build.sh hypervisor &
    env POISON=1 guest/host/build.sh hypervisor && wait $!
}
check "the known-bad image, the one that poisons HPFAR_EL2" special_images
# Each says in one line why it is not there; the tests then leave out what needs it.
guest/linux/fetch.sh Image busybox raspi4b.dtb u-boot.bin && guest/linux/initramfs.sh || true
[ "${1:-}" != all ] || guest/linux/fetch.sh Image-newer || true
guest/host/qemu-backports.sh || true

if [ "${1:-}" = all ]; then export FAULTLINE_QEMU=all; fi
tests "under QEMU" "$host" test -q --test qemu
tests "under gdb" "$host" test -q --test gdb -- --test-threads 1

echo
[ -z "$left_out" ] || echo "left out: ${left_out#; }"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
