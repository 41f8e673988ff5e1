//! The `autobuild` binary: see [`autobuild::cmd`].
fn main() {}
