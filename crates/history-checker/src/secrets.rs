//! Judges R11: searches for secrets where none may be.

use super::Leak;

/// Values that the worker must never publish, store or log.
#[derive(Default, Clone)]
pub struct Secrets(Vec<Vec<u8>>);

/// The minimum length of a secret in bytes. A shorter one would be found by chance.
const MIN_BYTES: usize = 8;

impl Secrets {
    /// Creates a search for secrets of at least eight bytes. Empty ones are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if a secret is shorter.
    pub fn new(values: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let values: Vec<Vec<u8>> =
            values.into_iter().map(String::into_bytes).filter(|value| !value.is_empty()).collect();
        match values.iter().position(|value| value.len() < MIN_BYTES) {
            Some(index) => Err(format!("secret {} has fewer than {MIN_BYTES} bytes", index + 1)),
            None => Ok(Self(values)),
        }
    }

    /// Returns whether there is nothing to search for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns a leak for each secret that the text contains.
    pub fn find(&self, text: &[u8], location: impl Fn() -> String) -> Vec<Leak> {
        let stands = |secret: &Vec<u8>| {
            let first = secret[0];
            let mut from = 0;
            while let Some(at) = text[from..].iter().position(|&byte| byte == first) {
                if text[from + at..].starts_with(secret) {
                    return true;
                }
                from += at + 1;
            }
            false
        };
        let found = self.0.iter().enumerate().filter(|(_, secret)| stands(secret));
        found.map(|(index, _)| Leak { secret: index + 1, location: location() }).collect()
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}
