//! Rebuilds the crate when a migration changes.

fn main() {
    // The migrations are embedded: without this a new file would go unnoticed.
    println!("cargo:rerun-if-changed=migrations");
}
