//! Limits a write to the lease that it needs.

use tokio::time::{Instant, timeout};

use super::error::StoreError;
use crate::domain::Lease;

/// Awaits a write that is useful only while the lease runs.
pub(super) async fn while_leased<T>(
    lease: &Lease,
    write: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable("the lease expired before the database answered".into());
    timeout(lease.left_at(Instant::now()), write).await.unwrap_or_else(|_| Err(late()))
}
