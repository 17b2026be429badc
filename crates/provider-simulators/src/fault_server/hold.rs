//! Holds a call at a known moment until a test releases it.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use tokio::sync::watch;

/// A call that waits inside the server until it is released or this value is dropped.
#[derive(Debug)]
pub struct HeldCall {
    arrived: watch::Receiver<bool>,
    // Dropping it opens the gate.
    _closed: watch::Sender<()>,
}

impl HeldCall {
    /// Creates a closed gate and the handle that opens it.
    pub(crate) fn new() -> (Self, Gate) {
        let (closed, opened) = watch::channel(());
        let (arrive, arrived) = watch::channel(false);
        (Self { arrived, _closed: closed }, Gate { arrive: Arc::new(arrive), opened })
    }

    /// Waits until the call has reached the gate.
    ///
    /// # Panics
    ///
    /// If the faults were cleared or the server stopped before a call came.
    pub async fn arrived(&self) {
        let waited = self.arrived.clone().wait_for(|arrived| *arrived).await.map(|_| ());
        waited.expect("the hold was cleared before a call came");
    }

    /// Releases the call.
    pub fn release(self) {}
}

/// The call's side of the gate: reports its arrival and waits.
#[derive(Clone, Debug)]
pub struct Gate {
    arrive: Arc<watch::Sender<bool>>,
    opened: watch::Receiver<()>,
}

impl Gate {
    pub(crate) async fn pass(&self) {
        self.arrive.send_replace(true);
        // Nothing is ever sent. The only change is that the sender is dropped.
        while self.opened.clone().changed().await.is_ok() {}
    }
}

impl Serialize for Gate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}
