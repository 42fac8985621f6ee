//! The contract in `wit/jobs.wit` as Rust, made by `wit-bindgen`.
//!
//! It is public because the export macros name it from inside a processor's crate, and hidden because nobody else should: it is outside the promises
//! of the version number.
//!
//! One small world per exported interface, instead of the worlds of the contract, for two reasons. The macros that `wit-bindgen` makes for other
//! crates have crate-wide names, so an interface that all worlds export (`lifecycle`) can be generated only once. And each macro adds a custom
//! section that describes its world to the processor's crate; when the module is lifted into a component these are united, so `lifecycle` + `batch`
//! make exactly the world `batch-processor`, `lifecycle` + `slow-query` the world `slow-query-processor`, and `lifecycle` + `file-check` the world `file-checker`. This library's own sections describe
//! imports only, and imports that are not used are dropped, so having all of them here costs a processor nothing.

/// `batch`, and with it the types and the host that the other worlds share.
pub mod batch_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world batch-part {
                import rowmill:jobs/host@0.1.0;
                export rowmill:jobs/batch@0.1.0;
            }
        ",
        generate_all,
        generate_unused_types: true,
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_batch",
    });
}

/// `lifecycle`, which processors and checkers export.
pub mod lifecycle_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world lifecycle-part {
                import rowmill:jobs/host@0.1.0;
                export rowmill:jobs/lifecycle@0.1.0;
            }
        ",
        with: {
            "rowmill:jobs/types@0.1.0": super::batch_part::rowmill::jobs::types,
            "rowmill:jobs/host@0.1.0": super::batch_part::rowmill::jobs::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_lifecycle",
    });
}

/// `slow-query`.
pub mod slow_query_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world slow-query-part {
                import rowmill:jobs/host@0.1.0;
                export rowmill:jobs/slow-query@0.1.0;
            }
        ",
        with: {
            "rowmill:jobs/types@0.1.0": super::batch_part::rowmill::jobs::types,
            "rowmill:jobs/host@0.1.0": super::batch_part::rowmill::jobs::host,
        },
        pub_export_macro: true,
        export_macro_name: "export_slow_query",
    });
}

/// `file-check`.
pub mod file_check_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world file-check-part {
                import rowmill:jobs/host@0.1.0;
                export rowmill:jobs/file-check@0.1.0;
            }
        ",
        with: {
            "rowmill:jobs/types@0.1.0": super::batch_part::rowmill::jobs::types,
            "rowmill:jobs/host@0.1.0": super::batch_part::rowmill::jobs::host,
        },
        additional_derives: [PartialEq, Eq],
        pub_export_macro: true,
        export_macro_name: "export_file_check",
    });
}

/// What a processor may use while its `mark-done` is called. It imports what it uses of it.
pub mod mark_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world mark-part {
                import rowmill:jobs/mark@0.1.0;
                import rowmill:jobs/output-files@0.1.0;
            }
        ",
        generate_all,
    });
}

/// What an operator may grant. A processor imports what it uses of it.
pub mod granted_part {
    wit_bindgen::generate!({
        path: "../wit",
        inline: "
            package rowmill:guest-sdk;
            world granted-part {
                import rowmill:objects/store@0.1.0;
                import rowmill:sql/query@0.1.0;
                import wasi:config/store@0.2.0-rc.1;
                import wasi:filesystem/preopens@0.2.12;
                import wasi:filesystem/types@0.2.12;
                import wasi:http/outgoing-handler@0.2.12;
                import wasi:keyvalue/store@0.2.0-draft;
                import wasi:keyvalue/atomics@0.2.0-draft;
                import wasi:keyvalue/batch@0.2.0-draft;
            }
        ",
        generate_all,
    });
}

pub use batch_part::exports::rowmill::jobs::batch;
pub use batch_part::rowmill::jobs::{host, types};
pub use file_check_part::exports::rowmill::jobs::file_check;
pub use lifecycle_part::exports::rowmill::jobs::lifecycle;
pub use slow_query_part::exports::rowmill::jobs::slow_query;
