//! Has the linker write an id of what it linked: what tells builds apart (`transport::image`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg=-Wl,--build-id=sha1");
}
