# The Rust for this machine: what `cargo` is to the person, where it is new enough, else Debian's. Sourced; sets $host.
host=cargo
version=$(cargo -V 2>/dev/null | sed -n 's/^cargo \([0-9]*\.[0-9]*\).*/\1/p')
[ "$(printf '1.88\n%s\n' "${version:-0}" | sort -V | head -n 1)" = 1.88 ] || host=debian_cargo

debian_cargo() {
    PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc /usr/bin/cargo "$@"
}

# What is built for the desk has a folder of its own, as `cargo test` by hand has its own.
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/host-tests}
export CARGO_TARGET_DIR
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
