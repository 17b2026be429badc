//! The connector kinds.

use std::{fmt, time::Duration};

use serde::de::DeserializeOwned;
use url::Url;

use super::{Connector, Supports, hyperswitch, razorpayx, revolut, sandbox, xendit};
use crate::{
    domain::follow::FollowPolicy,
    http_client::{HttpSettings, NoClient},
};

/// Every kind, under the name that `kind = "…"` gives in `[connectors.NAME]`.
pub static KINDS: &[Kind] = &[hyperswitch::KIND, razorpayx::KIND, revolut::KIND, sandbox::KIND, xendit::KIND];

/// A connector kind.
pub struct Kind {
    /// The name in the configuration: `revolut`.
    pub name: &'static str,
    /// The provider's own name, for people.
    pub title: &'static str,
    /// Settings without a default.
    pub needs: &'static [&'static str],
    /// The jobs that it can carry out.
    pub supports: Supports,
    /// The fields of the provider's errors that are published besides its message.
    pub error_fields: &'static [ErrorField],
    /// How links are followed, unless the configuration says otherwise.
    pub follow: FollowPolicy,
    /// The maximum number of links that one call asks about.
    pub links_per_question: usize,
    /// Reads the settings of an account from its section.
    pub read: fn(toml::Value) -> Result<Box<dyn Settings>, toml::de::Error>,
}

/// A field of a provider's error, beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorField {
    /// The provider's code.
    Code,
    /// Only where it is documented as one of a list of words.
    Reason,
}

impl Kind {
    /// Looks up a kind by its name in the configuration.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The settings of one account, as `[connectors.NAME]` has them beside `kind` and `calls`. `Debug` shows no secret.
pub trait Settings: fmt::Debug + Send + Sync {
    /// Returns the problems of the settings. Each begins with the name of its setting.
    ///
    /// `lease` is the worker's lease. `on_its_way` is how long an abandoned call may still arrive.
    fn problems(&self, lease: Duration, on_its_way: Duration) -> Vec<String>;

    /// Returns the provider's URL.
    fn url(&self) -> &Url;

    /// Returns the identity of the account at the provider. It may change with the credential. Only its digest is stored ([`AccountId`](crate::domain::AccountId)).
    fn identity(&self) -> String;

    /// Creates the connector.
    ///
    /// # Errors
    ///
    /// Returns an error if the HTTP client cannot be created.
    fn connect(&self, http: HttpSettings) -> Result<Box<dyn Connector>, NoClient>;
}

/// The policy of a provider that announces changes, ends links itself, and may be asked often.
pub(super) const FOLLOW: FollowPolicy = FollowPolicy {
    min_interval: Duration::from_mins(1),
    max_interval: Duration::from_mins(15),
    expiring: None,
    cancels_expired: false,
    confirm_cancel: Duration::ZERO,
    watch_reversals: Duration::from_hours(7 * 24),
};

/// Reads a section, for [`Kind::read`].
pub(super) fn read<S>(section: toml::Value) -> Result<Box<dyn Settings>, toml::de::Error>
where
    S: Settings + DeserializeOwned + 'static,
{
    Ok(Box::new(section.try_into::<S>()?))
}

/// Parses the URL of a provider's production, which is a constant.
pub(super) fn production_url(url: &str) -> Url {
    #[expect(clippy::expect_used, reason = "a constant")]
    Url::parse(url).expect("it is a URL")
}

/// Checks that no call can be under way any more after the settle time.
///
/// A call may begin late in its lease, and the kernel sends its bytes for `on_its_way` after it was abandoned
/// (`TCP_USER_TIMEOUT`).
pub(super) fn settle_problem(settle_seconds: u64, lease: Duration, on_its_way: Duration) -> Option<String> {
    let least = lease + on_its_way;
    (Duration::from_secs(settle_seconds) < least).then(|| {
        format!(
            "settle_seconds is {settle_seconds}, less than worker.lease_seconds and {} s for what is still on its way: set {} or more",
            on_its_way.as_secs(),
            least.as_secs()
        )
    })
}
