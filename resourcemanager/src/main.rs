#![expect(dead_code, reason = "main is not written yet")]
mod file_tree;
mod records;
mod store;
fn main() {}
