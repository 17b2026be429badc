//! The error of every verb: its variants differ in what the caller may do next.

use uuid::Uuid;

/// An error of the store. The variants differ in what the caller may do next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database is away, is restarting, or asked for a retry. The caller may try again.
    #[error("the database cannot be used right now: {0}")]
    Unavailable(String),
    /// The lease expired and the row belongs to another claim. The caller abandons the row.
    #[error("the lease has expired and the row belongs to another claim")]
    LeaseLost,
    /// A stored row cannot be read. The caller reports it.
    #[error("{table}.{column} of {id}: {reason}")]
    Inconsistent {
        /// The table of the row.
        table: &'static str,
        /// The column that cannot be read.
        column: &'static str,
        /// The id of the row.
        id: Uuid,
        /// Why it cannot be read.
        reason: String,
    },
    /// The database rejects the values of this row. The caller reports it.
    #[error("the database rejected the statement: {0}")]
    Rejected(String),
    /// The database is not one that this worker or this role can work with: a table, a column or a privilege is
    /// missing, or the role is locked out. The worker stops.
    #[error("the database cannot be used by this worker: {0}")]
    Unusable(String),
}

/// SQLSTATEs of a table, a column and a function that the database does not have.
const MISSING: [&str; 3] = ["42P01", "42703", "42883"];
const ANOTHER_SCHEMA: &str = ": a migration is missing, or this is another database than the workers use; `check` prints \
                              which one it is, and which migrations it lacks";

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                // Connection exceptions, transaction rollbacks (serialization, deadlock), insufficient resources,
                // operator intervention (restarts), and a primary that became read-only in a failover.
                let is_transient = ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
                    || code == "25006"
                    || code == "55P03";
                // Not supported, authorization, database and schema names, syntax and access rules.
                let is_permanent = ["0A", "28", "3D", "3F", "42"].iter().any(|class| code.starts_with(class));
                let mut text = format!("{} ({code})", error.message());
                if MISSING.contains(&&*code) {
                    text.push_str(ANOTHER_SCHEMA);
                }
                match (is_transient, is_permanent) {
                    (true, _) => Self::Unavailable(text),
                    (false, true) => Self::Unusable(text),
                    (false, false) => Self::Rejected(text),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error.to_string()),
            _ => Self::Rejected(error.to_string()),
        }
    }
}

impl StoreError {
    /// Makes an error about a stored row.
    pub(super) fn inconsistent(
        table: &'static str,
        column: &'static str,
        id: Uuid,
        reason: impl ToString,
    ) -> Self {
        Self::Inconsistent { table, column, id, reason: reason.to_string() }
    }
}
