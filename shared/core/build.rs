//! New files in `migrations/` must lead to a new build, since they are part of the binary.

fn main() {
    println!("cargo:rerun-if-changed=../../migrations");
}
