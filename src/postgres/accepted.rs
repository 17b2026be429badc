//! The answers to a job that is accepted, or was accepted before.

use uuid::Uuid;

use crate::domain::{EventType, OpenLink};

/// How a job was accepted.
pub enum Accepted {
    /// Stored, with a lease of this worker.
    New(Box<OpenLink>),
    /// Stored without a lease.
    Parked,
    /// A duplicate of an open record. The result will go to this message's `reply_to`.
    InProgress,
    /// A duplicate of a concluded record. Its stored result is published again.
    Finished {
        /// `message_id` of the result.
        event_id: Uuid,
        /// The type of the event.
        event_type: EventType,
        /// The connector account of the first job.
        connector: String,
        /// The stored result: JSON that holds the link, a secret.
        result: Vec<u8>,
    },
    /// Another request under the same key. The first is unchanged; these fields differ.
    Conflict {
        /// Paths of the fields that differ.
        fields: Vec<String>,
    },
}
