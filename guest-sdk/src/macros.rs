//! The macros that make a type the processor of its crate.

/// Makes a type that implements [`BatchProcessor`](crate::BatchProcessor) the processor of this crate, whose type must be `cdylib`.
///
/// Use it once, at the top of the crate. In a native build it only checks that the type is one.
#[macro_export]
macro_rules! export_batch_processor {
    ($processor:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::instance::BatchInstance<$processor> = const { $crate::instance::BatchInstance::new() };
            }

            $crate::__export_lifecycle!(INSTANCE);

            impl $crate::bindings::batch::Guest for Exports {
                fn begin(batch: $crate::bindings::types::BatchInfo) -> ::std::result::Result<(), $crate::bindings::types::Failure> {
                    INSTANCE.with(|instance| instance.begin(batch))
                }

                fn process_row(
                    row: $crate::bindings::types::Row,
                ) -> ::std::result::Result<$crate::bindings::types::Outcome, $crate::bindings::types::Failure> {
                    INSTANCE.with(|instance| instance.process_row(row))
                }

                fn mark_done(summary: $crate::bindings::types::Summary) -> ::std::result::Result<(), $crate::bindings::types::Failure> {
                    INSTANCE.with(|instance| instance.mark_done(summary))
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::batch_part::export_batch!(Exports with_types_in $crate::bindings::batch_part);
        };
    };
}

/// Makes a type that implements [`SlowQueryProcessor`](crate::SlowQueryProcessor) the processor of this crate, whose type must be `cdylib`.
///
/// Use it once, at the top of the crate. In a native build it only checks that the type is one.
#[macro_export]
macro_rules! export_slow_query_processor {
    ($processor:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::instance::SlowQueryInstance<$processor> = const { $crate::instance::SlowQueryInstance::new() };
            }

            $crate::__export_lifecycle!(INSTANCE);

            impl $crate::bindings::slow_query::Guest for Exports {
                fn run(
                    query: $crate::bindings::types::BatchInfo,
                    input: ::std::string::String,
                    attempt: u32,
                ) -> ::std::result::Result<$crate::bindings::types::Outcome, $crate::bindings::types::Failure> {
                    INSTANCE.with(|instance| instance.run(query, input, attempt))
                }

                fn mark_done(summary: $crate::bindings::types::Summary) -> ::std::result::Result<(), $crate::bindings::types::Failure> {
                    INSTANCE.with(|instance| instance.mark_done(summary))
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::slow_query_part::export_slow_query!(Exports with_types_in $crate::bindings::slow_query_part);
        };
    };
}

/// Makes a type that implements [`FileChecker`](crate::FileChecker) the checker of files of this crate, whose type must be `cdylib`.
///
/// Use it once, at the top of the crate. In a native build it only checks that the type is one.
#[macro_export]
macro_rules! export_file_checker {
    ($checker:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::check_instance::CheckInstance<$checker> = const { $crate::check_instance::CheckInstance::new() };
            }

            $crate::__export_lifecycle!(INSTANCE);

            impl $crate::bindings::file_check::Guest for Exports {
                fn begin(
                    file: $crate::bindings::file_check::FileInfo,
                ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::bindings::file_check::Finding>> {
                    INSTANCE.with(|instance| instance.begin(file))
                }

                fn check_records(
                    records: ::std::vec::Vec<$crate::bindings::file_check::FileRecord>,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<$crate::bindings::file_check::FileRow>,
                    ::std::vec::Vec<$crate::bindings::file_check::Finding>,
                > {
                    INSTANCE.with(|instance| instance.check_records(records))
                }

                fn end() -> ::std::result::Result<::std::string::String, ::std::vec::Vec<$crate::bindings::file_check::Finding>> {
                    INSTANCE.with(|instance| instance.end())
                }
            }

            #[cfg(target_arch = "wasm32")]
    $crate::bindings::file_check_part::export_file_check!(Exports with_types_in $crate::bindings::file_check_part);
        };
    };
}

/// What these macros share. The names in it are those of the macro that calls it.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_lifecycle {
    ($instance:ident) => {
        struct Exports;

        impl $crate::bindings::lifecycle::Guest for Exports {
            fn init(app: $crate::AppInfo) -> ::std::result::Result<(), ::std::string::String> {
                $instance.with(|instance| instance.init(&app))
            }

            fn close() {
                $instance.with(|instance| instance.close());
            }
        }

        // A native build exports nothing (its linkers do not take such names), and would call the processor dead code.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() = <Exports as $crate::bindings::lifecycle::Guest>::close;
        #[cfg(target_arch = "wasm32")]
        $crate::bindings::lifecycle_part::export_lifecycle!(Exports with_types_in $crate::bindings::lifecycle_part);
    };
}
