//! `obstacles`: what keeps workers from calling providers, for an operator who asks why a due record waits.

use super::{
    breakers::OpenBreaker,
    error::StoreError,
    pauses::{self, Pauses},
    reader::Reader,
};

/// The reasons why workers do not call providers.
#[derive(Debug, Clone, Default)]
pub struct Obstacles {
    /// The pauses of operators.
    pub pauses: Pauses,
    /// The open circuit breakers of the workers that run.
    pub breakers: Vec<OpenBreaker>,
}

impl Reader {
    /// Reads what keeps workers from calling providers.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] but `LeaseLost`.
    pub async fn obstacles(&self) -> Result<Obstacles, StoreError> {
        Ok(Obstacles { pauses: pauses::read(&self.pool).await?, breakers: self.open_breakers().await? })
    }
}
