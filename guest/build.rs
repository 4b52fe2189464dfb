//! Guests are linked where the guest platform enters a raw binary, so they need no relocation; the hypervisor's
//! flags, which the configuration above this folder gives us too, ask for a position-independent image.
fn main() {
    println!("cargo:rustc-link-arg-bins=--no-pie");
    println!("cargo:rustc-link-arg-examples=--no-pie");
    println!("cargo:rerun-if-changed=linker.ld");
}
