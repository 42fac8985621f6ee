use serde::Serialize;

use super::{ProcessorKind, Timestamp};

/// A version of the processor for an app and an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessorVersion {
    pub app: String,
    /// In lower case.
    pub op: String,
    /// From 1 on. The newest serves the batches that are submitted from then on.
    pub version: u32,
    pub kind: ProcessorKind,
    /// SHA-256 of the component, in hexadecimal.
    pub digest: String,
    pub created_at: Timestamp,
}
