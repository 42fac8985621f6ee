//! The host's side of wit/jobs.wit, whose worlds share the types and the host's functions, and of what can be granted.

pub(super) mod batch {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "batch-processor",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

pub(super) mod slow_query {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "slow-query-processor",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
        with: {
            "rowmill:jobs/types": super::batch::rowmill::jobs::types,
            "rowmill:jobs/host": super::batch::rowmill::jobs::host,
        },
    });
}

pub(super) mod file_check {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "file-checker",
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: false },
        with: {
            "rowmill:jobs/types": super::batch::rowmill::jobs::types,
            "rowmill:jobs/host": super::batch::rowmill::jobs::host,
        },
    });
}

pub(super) mod config {
    wasmtime::component::bindgen!({ path: "../wit", world: "wasi:config/imports" });
}

pub(super) mod key_value {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "wasi:keyvalue/imports",
        imports: { default: async | trappable },
        with: { "wasi:keyvalue/store.bucket": super::super::key_value::Bucket },
        trappable_error_type: { "wasi:keyvalue/store.error" => super::super::key_value::KeyValueError },
    });
}

pub(super) mod sql {
    wasmtime::component::bindgen!({ path: "../wit", world: "rowmill:sql/imports", imports: { default: async } });
}

pub(super) mod objects {
    wasmtime::component::bindgen!({ path: "../wit", world: "rowmill:objects/imports", imports: { default: async } });
}

pub(super) mod mark_done {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "rowmill:jobs/mark-done-imports",
        imports: { default: async | trappable },
        with: { "rowmill:jobs/output-files.reader": super::super::output_files::Reader },
        trappable_error_type: { "rowmill:jobs/output-files.error" => super::super::output_files::ReadError },
    });
}

pub(super) use batch::rowmill::jobs::{host, types};
