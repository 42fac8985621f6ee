//! Whom servers run as: PostgreSQL and PgBouncer refuse to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use anyhow::Context;

/// An account of this machine without rights of its own.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// The account to use instead of root's; none when this process is not root's.
    pub fn instead_of_root() -> anyhow::Result<Option<Account>> {
        if fs::metadata("/proc/self").context("/proc is not mounted")?.uid() != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
        let found = ["postgres", "nobody"].iter().find_map(|name| find(&accounts, name));
        found.map(Some).context("PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody` to run it as")
    }

    /// Gives a directory to this account.
    pub fn own(self, directory: &Path) -> anyhow::Result<()> {
        chown(directory, Some(self.uid), Some(self.gid)).with_context(|| format!("{} cannot be given away", directory.display()))
    }
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    let fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
    Some(Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
}
