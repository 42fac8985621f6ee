//! What the guest that reaches for everything (`reaching`) imports, for those who are about one part of it.

use std::path::Path;
use std::sync::LazyLock;

use rowmill::model::{Grants, ObjectsGrant, SqlGrant};
use tempfile::TempDir;

/// These, and the databases and objects that the guest imports, too.
#[must_use]
pub fn with_what_it_imports(mut grants: Grants) -> Grants {
    grants.sql.insert("bank".to_owned(), SqlGrant::default());
    grants.objects = Some(ObjectsGrant::default());
    grants
}

/// The workers' directory that names the database: nobody asks it.
///
/// # Panics
/// When a directory cannot be made.
#[must_use]
pub fn databases_directory() -> &'static Path {
    static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
        let directory = TempDir::new().expect("there is a place for files");
        std::fs::write(directory.path().join("bank"), "postgres://reader@127.0.0.1:1/bank").expect("a new directory takes files");
        directory
    });
    DIRECTORY.path()
}
