#!/bin/sh
# Brings what is missing on this machine and chooses the Rust that builds for EL2. Asks nothing; installs nothing twice.
#
#   setup.sh [PURPOSE]     test: also the linter, where the chosen toolchain has none
#                          debug: also a program that speaks to the console's socket
#
# Writes target/host/toolchain, a shell fragment for build.sh and test.sh:
#   toolchain        its name, also the name of its target folder
#   cargo, rustc     its programs
#   build_std        flags that build the core library from source; empty where rustup has it built
#
# Order: rustup's own aarch64-unknown-none-softfloat (added once, if rustup can), else any Rust >= 1.88 with the sources
# of its library, else Debian's rustc-web. TOOLCHAIN=rustup|debian takes only that one.
set -eu
cd "$(dirname "$0")/../.."
. guest/host/common.sh
triple=aarch64-unknown-none-softfloat oldest=1.88
state=target/host
mkdir -p "$state"
check=${TOOLCHAIN:-any}
case $check in any | rustup | debian) ;; *) refuse "TOOLCHAIN=$check: must be one of: rustup debian" ;; esac

has() { command -v "$1" >/dev/null 2>&1; }

# The version of a rustc, as far as it is one and new enough for us: 1.96
new_enough() { # RUSTC
    version=$("$1" -V 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$oldest" "$version" | sort -V | head -n 1)" = "$oldest" ]
}

remember() { # NAME CARGO RUSTC BUILD_STD SYSROOT
    cat >"$state/toolchain" <<EOF
toolchain='$1' cargo='$(command -v "$2")' rustc='$(command -v "$3")'
build_std='$4'
# Chosen because this is there:
proof='$5'
EOF
}

# A built library for the target, which rustup is asked for once per machine and remembered.
use_built() { # RUSTC CARGO
    new_enough "$1" || return 1
    sysroot=$("$1" --print sysroot)
    if [ ! -d "$sysroot/lib/rustlib/$triple/lib" ]; then
        has rustup && [ ! -e "$state/rustup-cannot-add-the-target" ] || return 1
        : >"$state/rustup-cannot-add-the-target"
        RUSTUP_MAX_RETRIES=0 timeout 60 rustup -q target add "$triple" >/dev/null 2>&1 || return 1
        [ -d "$sysroot/lib/rustlib/$triple/lib" ] || return 1
        rm "$state/rustup-cannot-add-the-target"
        say add "$triple to rustup's Rust $version"
    fi
    remember "rust-$version" "$2" "$1" "" "$sysroot/lib/rustlib/$triple/lib"
}

# The sources of the library: -Zbuild-std wants them, and a word that unlocks it on a stable compiler.
use_sources() { # RUSTC CARGO
    new_enough "$1" && has "$2" || return 1
    sources=$("$1" --print sysroot)/lib/rustlib/src/rust/library
    [ -e "$sources/core/Cargo.toml" ] || return 1
    remember "rust-$version-std" "$2" "$1" \
        "-Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem" "$sources/core/Cargo.toml"
}

choose() {
    case $check in
        any) use_built rustc cargo || use_sources rustc cargo || use_sources /usr/bin/rustc /usr/bin/cargo ;;
        rustup) use_built rustc cargo ;;
        debian) use_sources /usr/bin/rustc /usr/bin/cargo ;;
    esac
}

chosen() {
    [ -s "$state/toolchain" ] || return 1
    . "./$state/toolchain"
    [ -e "$proof" ] && has "$cargo" || return 1
    case $check-$build_std in rustup-?* | debian-) return 1 ;; esac
}

# Debian packages by the program that shows they are there.
packages=
want() { has "$1" || packages="$packages $2"; }
[ -x target/qemu-release/qemu ] || want qemu-system-aarch64 qemu-system-arm
want dtc device-tree-compiler
want gdb-multiarch gdb-multiarch
want objcopy binutils
want cc "gcc libc6-dev"
if ! chosen && ! choose; then packages="$packages rustc-web cargo-web rust-web-src"; fi
if ! chosen || [ -n "$build_std" ]; then want ld.lld lld; fi
if [ "${1:-}" = test ]; then
    # The linter that fits the compiler: rustup's comes with it (not with its minimal profile), Debian's is a package.
    if ! chosen || [ "$cargo" = /usr/bin/cargo ]; then want /usr/bin/cargo-clippy rust-web-clippy; fi
    cargo fmt --version >/dev/null 2>&1 || want /usr/bin/rustfmt rustfmt-web
fi
if [ "${1:-}" = debug ]; then want socat socat; fi
[ -n "$packages" ] || exit 0
packages=${packages# }

has apt-get || refuse "missing on this machine: $packages (names of Debian packages); install them, then try again"
[ "$(id -u)" = 0 ] || refuse "missing: sudo apt-get install --no-install-recommends $packages"
say install "$packages"
log=$state/install.log
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of packages
{
    apt-get -q update
    # Another QEMU's tools may be installed, of a version that this release's emulator cannot stand beside.
    case $packages in
        *qemu-system-arm*)
            if apt-get -q install -s --no-install-recommends qemu-system-arm | grep '^Remv'; then
                packages=$(printf '%s' "$packages" | sed 's/ *qemu-system-arm//')
                guest/host/qemu-backports.sh release >&3 2>&3
            fi
            ;;
    esac
    [ -z "$packages" ] || apt-get -q install -y --no-install-recommends --no-remove $packages
} 3>&2 >"$log" 2>&1 || {
    grep '^E' "$log" >&2 || tail -n 3 "$log" >&2
    refuse "could not install: apt-get install --no-install-recommends $packages"
}
chosen || choose || refuse "no Rust >= $oldest that can build for $triple: \`rustup target add $triple\` on a machine with network"
