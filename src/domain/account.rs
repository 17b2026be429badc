//! The identity of an account at a provider.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};

/// A short digest of the connector kind, the provider's URL and the account's identity there. It is not a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(Arc<str>);

impl AccountId {
    /// Computes the id. `kind` is the connector kind; `identity` names the account at the provider.
    pub fn of(kind: &str, url: &str, identity: &str) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [kind, url.trim_end_matches('/'), identity] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let digest = context.finish();
        let hex: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Self(hex.into())
    }

    /// Wraps an id that was read from a record.
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the id as 16 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_for_ever_and_differs_in_every_part() {
        let id = AccountId::of("sandbox", "https://pay.example/", "acme");
        assert_eq!(id, AccountId::of("sandbox", "https://pay.example", "acme"));
        assert_eq!(id.as_str(), "ebaa009623a82ebe");
        for other in [
            AccountId::of("xendit", "https://pay.example/", "acme"),
            AccountId::of("sandbox", "https://live.example/", "acme"),
            AccountId::of("sandbox", "https://pay.example/", "acme2"),
            AccountId::of("sandbox", "https://pay.exampl", "eacme"),
        ] {
            assert_ne!(id, other);
        }
        assert_eq!(AccountId::stored(id.as_str()), id);
    }
}
