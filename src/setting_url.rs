//! Parses the URLs of the configuration: one parser and one form of error for all of them, before anything connects.
//!
//! Two parsers could read two hosts from one URL and send the password to the wrong one. So only this module reads the host, by
//! the rules of the URL standard for `http`, and the clients get it as read. A part that would be ignored is an error. An error
//! repeats only the name of a parameter, because the rest may be a password.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, de};
use url::{Host, Url};

/// The form of a kind of URL.
#[derive(Debug)]
pub struct UrlForm {
    schemes: &'static [&'static str],
    /// Whether it may have a user name and a password.
    has_credentials: bool,
    /// Known parameters; all others are errors.
    parameters: &'static [&'static str],
    /// Maximum number of path segments.
    max_segments: usize,
    shown: &'static str,
}

/// The form of the broker's URL.
pub const BROKER: UrlForm = UrlForm {
    schemes: &["amqp", "amqps"],
    has_credentials: true,
    parameters: &["frame_max", "channel_max", "heartbeat", "connection_timeout", "auth_mechanism"],
    max_segments: 1,
    shown: "amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps:// for TLS)",
};

/// The form of the database's URL, with the parameters that sqlx reads.
pub const DATABASE: UrlForm = UrlForm {
    schemes: &["postgres", "postgresql"],
    has_credentials: true,
    parameters: &[
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
        "statement-cache-capacity",
    ],
    max_segments: 1,
    shown: "postgres://USER:PASSWORD@HOST:PORT/DATABASE",
};

/// The form of the URL of a service that is called over HTTP.
pub const SERVICE: UrlForm = UrlForm {
    schemes: &["http", "https"],
    has_credentials: false,
    parameters: &[],
    max_segments: usize::MAX,
    shown: "https://HOST:PORT/PATH",
};

/// A parsed URL.
pub struct SettingUrl {
    /// The URL, with its credentials.
    pub url: Url,
    /// The host for a client: an IPv6 address without brackets. `None` for a socket in the file system.
    pub host: Option<String>,
}

/// The reason why a URL cannot be used, and its correct form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidUrl {
    problem: Cow<'static, str>,
    shown: &'static str,
}

impl fmt::Display for InvalidUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}: expected {}", self.problem, self.shown)
    }
}

impl std::error::Error for InvalidUrl {}

/// The beginning of every error. Such a text repeats no value.
pub const MARK: &str = "the URL ";

const UNESCAPED: &str = "has a character that does not belong there: in a user name, a password and a vhost every special character is percent-encoded (@ is %40, / is %2F, # is %23, ? is %3F, % is %25)";

impl UrlForm {
    /// Parses a URL of this form.
    ///
    /// # Errors
    ///
    /// If a part of it cannot be read, or would be ignored.
    pub fn parse(&self, text: &str) -> Result<SettingUrl, InvalidUrl> {
        self.read(text).map_err(|problem| InvalidUrl { problem, shown: self.shown })
    }

    fn read(&self, text: &str) -> Result<SettingUrl, Cow<'static, str>> {
        if text.is_empty() {
            return Err("is empty".into());
        }
        // The standard passes over some of these, and takes a backslash for a slash.
        if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err("has a space, a control character or a backslash in it".into());
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("is not one".into());
        };
        if !self.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err("has another scheme".into());
        }
        // An unescaped character in a password would make the rest of the password look like the host.
        let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if behind.contains(['@', '#']) || authority.matches('@').count() > 1 {
            return Err(UNESCAPED.into());
        }
        let (credentials, address) = match authority.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, authority),
        };
        match credentials {
            Some(_) if !self.has_credentials => {
                return Err("has a user name or a password in it, which has a setting of its own".into());
            }
            Some(credentials) if !is_escaped(credentials) => return Err(UNESCAPED.into()),
            _ => {}
        }
        let url = Url::parse(text).map_err(|error| match error {
            url::ParseError::EmptyHost => Cow::from("has no host"),
            url::ParseError::InvalidPort => Cow::from(
                "has a port that is not a number from 1 to 65535 (an IPv6 address stands in brackets, as in [::1])",
            ),
            url::ParseError::InvalidIpv6Address => "has brackets without an IPv6 address".into(),
            _ => "has a host that cannot be read".into(),
        })?;
        if url.port() == Some(0) {
            return Err("has the port 0".into());
        }
        let segments = url.path().trim_start_matches('/');
        if !is_escaped(segments) || segments.split('/').count() > self.max_segments {
            return Err(format!("has a path that cannot be read; {UNESCAPED}").into());
        }
        self.check_parameters(&url)?;
        let host = self.host(&url, address)?;
        Ok(SettingUrl { url, host })
    }

    fn check_parameters(&self, url: &Url) -> Result<(), Cow<'static, str>> {
        let mut seen = Vec::new();
        for (name, _) in url.query_pairs() {
            if !self.parameters.contains(&&*name) {
                let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
                let name = if is_name && name.len() <= 40 { format!(" {name:?}") } else { String::new() };
                return Err(format!("has the parameter{name}, which the worker does not know").into());
            }
            if seen.contains(&name) {
                return Err(format!("has the parameter {name:?} twice").into());
            }
            seen.push(name);
        }
        Ok(())
    }

    fn host(&self, url: &Url, address: &str) -> Result<Option<String>, Cow<'static, str>> {
        let in_query: Vec<_> =
            url.query_pairs().filter(|(name, _)| matches!(&**name, "host" | "hostaddr")).collect();
        let written = url.host_str().unwrap_or_default();
        if in_query.len() + usize::from(!written.is_empty()) > 1 {
            return Err("has two hosts".into());
        }
        let written = match in_query.first() {
            None if written.is_empty() => return Err("has no host".into()),
            None => written.to_owned(),
            Some((_, host)) if host.is_empty() => return Err("has no host".into()),
            Some((_, host)) => host.clone().into_owned(),
        };
        // A directory of PostgreSQL's socket, as libpq takes it.
        let may_be_socket = self.schemes == DATABASE.schemes;
        if may_be_socket && (written.starts_with('/') || written.to_ascii_lowercase().starts_with("%2f")) {
            return Ok(None);
        }
        // Other schemes than http's leave their host as it is written: it is read as http's is.
        let host = match written.parse::<std::net::Ipv6Addr>() {
            Ok(address) if !in_query.is_empty() => Host::Ipv6(address),
            _ => Host::parse(&written).map_err(|_| Cow::from("has a host that cannot be read"))?,
        };
        if address.contains('%') && matches!(host, Host::Domain(_)) {
            return Err("has a host that is percent-encoded".into());
        }
        Ok(Some(match host {
            Host::Domain(name) => name,
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }))
    }
}

/// Returns whether each `%` begins an escape, and the escapes are UTF-8.
fn is_escaped(text: &str) -> bool {
    let mut parts = text.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
        && percent_decode_str(text).decode_utf8().is_ok()
}

/// Deserializes the URL of a service, for settings.
///
/// # Errors
///
/// As [`UrlForm::parse`], with the text of an [`InvalidUrl`].
pub fn service<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    SERVICE.parse(&text).map(|read| read.url).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(form: &UrlForm, text: &str) -> Option<String> {
        form.parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).host
    }

    #[test]
    fn the_host_is_the_one_that_is_written() {
        for (form, text, expected) in [
            (&BROKER, "amqp://guest:guest@[::1]:5672/%2f", "::1"),
            (&BROKER, "amqp://[2001:DB8::5]", "2001:db8::5"),
            (&BROKER, "AMQPS://rabbit.example/", "rabbit.example"),
            (&BROKER, "amqp://Rabbit_1:5672?heartbeat=5", "rabbit_1"),
            (&BROKER, "amqp://u:p%40ss%2F@127.0.0.1/a%2Fb?auth_mechanism=plain", "127.0.0.1"),
            (&BROKER, "amqp://0x7f.1/", "127.0.0.1"),
            (&BROKER, "amqp://u:@bücher.example/", "xn--bcher-kva.example"),
            (&DATABASE, "postgres://u:p@[::1]:5432/db?sslmode=require", "::1"),
            (&DATABASE, "postgresql:///db?hostaddr=::1", "::1"),
            (&DATABASE, "postgres://db.example./", "db.example."),
            (&SERVICE, "https://[::1]:8443/v1", "::1"),
            (&SERVICE, "http://localhost", "localhost"),
        ] {
            assert_eq!(host(form, text).as_deref(), Some(expected), "{text}");
        }
        for text in ["postgres:///db?host=/var/run/postgresql", "postgres://u@%2Fvar%2Frun%2Fpostgresql/db"] {
            assert_eq!(host(&DATABASE, text), None, "{text}");
        }
    }

    #[test]
    fn whatever_could_be_read_in_two_ways_is_an_error_that_repeats_nothing() {
        for (form, text) in [
            (&BROKER, ""),
            (&BROKER, "canary"),
            (&BROKER, "canary:5672"),
            (&BROKER, "http://canary/"),
            (&BROKER, "amqp:/canary"),
            (&BROKER, "amqp:///canary"),
            (&BROKER, "amqp://u:canary@/"),
            (&BROKER, "amqp://u:canary@:5672/"),
            (&BROKER, "amqp://::1:5672/canary"),
            (&BROKER, "amqp://[::1/canary"),
            (&BROKER, "amqp://[fe80::1%25eth0]/canary"),
            (&BROKER, "amqp://[canary]/"),
            (&BROKER, "amqp://u:1#canary@host/"),
            (&BROKER, "amqp://u:1?canary@host/"),
            (&BROKER, "amqp://u:1/canary@host/"),
            (&BROKER, "amqp://u:1@canary@host/"),
            (&BROKER, "amqp://u:100%canary@host/"),
            (&BROKER, "amqp://u:%ffcanary@host/"),
            (&BROKER, "amqp://u:can ary@host/"),
            (&BROKER, "amqp://u:canary\\@host/"),
            (&BROKER, " amqp://canary/"),
            (&BROKER, "amqp://host:0/canary"),
            (&BROKER, "amqp://host:65536/canary"),
            (&BROKER, "amqp://host:canary/"),
            (&BROKER, "amqp://ho%73t/canary"),
            (&BROKER, "amqp://host/canary/b"),
            (&BROKER, "amqp://host/%2f?heartbeat=1&heartbeat=2&a=canary"),
            (&BROKER, "amqp://1.2.3.canary.4/"),
            (&DATABASE, "postgres:///canary"),
            (&DATABASE, "postgres://host/db?host=canary"),
            (&DATABASE, "postgres://host/db?nonsense=canary"),
            (&DATABASE, "postgres://a:5432,canary:5432/db"),
            (&DATABASE, "postgres://host/canary#"),
            (&DATABASE, "host=canary dbname=a"),
            (&SERVICE, "https://u:canary@host/"),
            (&SERVICE, "https://host/?a=canary"),
            (&SERVICE, "https:canary"),
            (&SERVICE, "https://300.300.300.300/canary"),
        ] {
            let error = form.parse(text).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(error.starts_with(MARK) && error.contains(form.shown), "{text}: {error}");
            assert!(!error.contains("canary") && !error.contains("can ary"), "{text}: {error}");
        }
        let error = BROKER.parse("amqp://h/%2f?verify=peer").err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("\"verify\"")));
    }
}
