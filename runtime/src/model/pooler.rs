/// What stands between the program and the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooler {
    #[default]
    None,
    /// A pooler in transaction mode, such as PgBouncer: each transaction may get another connection, so there are no prepared statements and no LISTEN. Work of
    /// other processes is found by polling.
    Transaction,
}
