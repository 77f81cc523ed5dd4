#![expect(dead_code, reason = "main is not written yet")]
mod config;
mod file_tree;
mod grpc {
    pub(crate) mod identify;
    pub(crate) mod staging;
    pub(crate) mod status;
    pub(crate) mod translate;
}
mod records;
mod store;
fn main() {}
