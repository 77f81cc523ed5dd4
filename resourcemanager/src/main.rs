#![expect(dead_code, reason = "main is not written yet")]
mod file_tree;
mod grpc {
    mod translate;
}
mod records;
mod store;
fn main() {}
