//! Against a real PostgreSQL.
fn main() {}
