#!/bin/sh
# Builds for EL2 and EL1 with the Rust that setup.sh chose. Quiet; the compiler's own words are shown when it has any.
#
#   build.sh hypervisor      target/faultline.elf (symbols) and target/faultline.img (flat)
#   build.sh guests          target/guest/NAME.bin and NAME.elf, every guest of guest/; and
#                            target/linux/code_changes and samples, programs for Linux
#
# POISON=1 builds the hypervisor that finds a wrong address wherever HPFAR_EL2 is not valid: target/faultline-poison.*.
# BUG=NAME builds the known-bad hypervisor --cfg faultline_bug="NAME" instead: target/faultline-NAME.{elf,img}.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
. target/host/toolchain
triple=aarch64-unknown-none-softfloat

# Variables that would take the place of the flags in .cargo/config.toml, without which nothing here links.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_RUSTFLAGS

# build TARGET_FOLDER WHAT ARGUMENTS...
build() {
    [ -d "$1/$triple" ] || say build "$2 (the first time takes a minute or two)"
    export CARGO_TARGET_DIR="$1" RUSTC="$rustc"
    shift 2
    if [ -n "$build_std" ]; then
        # -Zbuild-std on a stable compiler, and the linker that rustup would bring along.
        export RUSTC_BOOTSTRAP=1 CARGO_TARGET_AARCH64_UNKNOWN_NONE_SOFTFLOAT_LINKER=ld.lld
    fi
    # shellcheck disable=SC2086  # a list of flags
    "$cargo" build -q --release --target $triple $build_std "$@"
}

# GNU objcopy of any machine flattens any ELF, when told not to ask which machine it is for.
flatten() { # ELF FLAT
    objcopy -I elf64-little -O binary "$1" "$2"
}

hypervisor() {
    folder=$PWD/target/$toolchain name=faultline
    set -- --bin faultline
    if [ -n "${BUG:-}" ]; then
        folder=$folder-bug name=faultline-$BUG
        set -- "$@" --config "target.$triple.rustflags=['--cfg', 'faultline_bug=\"$BUG\"']"
    fi
    if [ -n "${POISON:-}" ]; then
        folder=$folder-poison name=$name-poison
        set -- "$@" --config "target.$triple.rustflags=['--cfg', 'faultline_poison']"
    fi
    build "$folder" "the hypervisor" "$@"
    cp "$folder/$triple/release/faultline" "target/$name.elf"
    flatten "target/$name.elf" "target/$name.img"
}

guests() {
    [ -e guest/Cargo.toml ] || return 0
    # From its own folder: the flags of .cargo/config.toml name a linker script, and this crate has its own.
    folder=$PWD/target/guest-$toolchain
    (cd guest && build "$folder" "the guests" --bins --examples)
    mkdir -p target/guest target/linux
    sed -n '/^\[\[bin\]\]/,/^$/s/^name = "\(.*\)"/\1/p' guest/Cargo.toml | while read -r name; do
        cp "$folder/$triple/release/$name" "target/guest/$name.elf"
        flatten "target/guest/$name.elf" "target/guest/$name.bin"
    done
    for program in code_changes samples; do cp "$folder/$triple/release/examples/$program" target/linux/; done
}

for what; do
    case $what in
        hypervisor | guests) $what ;;
        *) refuse "build.sh: $what: must be one of: hypervisor guests" ;;
    esac
done
