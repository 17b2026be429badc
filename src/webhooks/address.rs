//! The address policy of webhooks: public addresses, and the exceptions of the configuration.
//!
//! The policy also checks the host of the URL, because a literal address is not resolved. The `url` crate has normalised every
//! spelling of an address by then.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
};

use ipnet::IpNet;
use url::{Host, Url};

/// The exceptions of the address policy.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    /// Networks that may be posted to although they are not public.
    pub allowed_networks: Vec<IpNet>,
    /// Names that may resolve to anything.
    pub allowed_hosts: Vec<String>,
}

/// The reason why a host is not allowed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "each message says it")]
pub enum AddressError {
    #[error(
        "the webhook's host is not a public address; name a public host, or have the network allowed in webhooks.allowed_networks"
    )]
    NotPublic,
    #[error(
        "no public server has the webhook's host: names below {0} are for other uses; name a public host, or have it allowed in webhooks.allowed_hosts"
    )]
    SpecialUse(&'static str),
    #[error(
        "the webhook's host cannot be a name: its labels are 1 to 63 letters, digits and hyphens, 253 characters at most in all"
    )]
    Impossible,
    #[error("the webhook's host does not resolve to a public address")]
    NoPublicAddress,
}

/// Special-purpose addresses (IANA registries), as Svix blocks them, and the deprecated site-local, Teredo and
/// IPv4-compatible ranges.
static NOT_PUBLIC: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
    ]
    .iter()
    .filter_map(|network| network.parse().ok())
    .collect()
});

/// Names that the public DNS does not have, with all below them (IANA's registry of special-use domain names; `internal` is
/// reserved by ICANN).
const SPECIAL_USE: &[&str] =
    &["alt", "home.arpa", "internal", "invalid", "local", "localhost", "onion", "test"];

impl AddressPolicy {
    /// Returns whether an address is public or excepted.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        within(&self.allowed_networks) || !within(&NOT_PUBLIC)
    }

    /// Checks the host of a URL. The addresses of a name are checked when it is resolved.
    ///
    /// # Errors
    ///
    /// Returns the reason if the host is not allowed.
    pub fn check(&self, url: &Url) -> Result<(), AddressError> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(name)) => return self.check_name(name),
            None => Ipv6Addr::UNSPECIFIED.into(),
        };
        if self.allows(address) { Ok(()) } else { Err(AddressError::NotPublic) }
    }

    /// Checks a name in lower case and punycode, as the URL parser returns it.
    fn check_name(&self, name: &str) -> Result<(), AddressError> {
        if self.allows_host(name) {
            return Ok(());
        }
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_label = |label: &str| {
            let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=63).contains(&label.len()) && label.bytes().all(is_sound)
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(AddressError::Impossible);
        }
        let is_below = |suffix: &&&str| {
            name.strip_suffix(**suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match SPECIAL_USE.iter().find(is_below) {
            Some(suffix) => Err(AddressError::SpecialUse(suffix)),
            None => Ok(()),
        }
    }

    /// Returns whether this name may resolve to any address.
    pub(super) fn allows_host(&self, host: &str) -> bool {
        // As the parser of URLs writes it: in lower case, and in punycode.
        let parsed = |name: &str| Host::parse(name.trim_end_matches('.')).map(|host| host.to_string());
        let host = host.trim_end_matches('.');
        self.allowed_hosts.iter().any(|allowed| {
            allowed.eq_ignore_ascii_case(host) || parsed(allowed).is_ok_and(|allowed| allowed == host)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_understood() {
        assert_eq!(NOT_PUBLIC.len(), 28);
    }

    #[test]
    fn odd_spellings_are_decided_by_what_they_are() {
        let policy = AddressPolicy::default();
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:a00:1]/",
            "https://169.254.169.254/",
            "https://[fe80::1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://100.64.0.1/",
            "https://0/",
            "https://255.255.255.255/",
            "https://[fd00:ec2::254]/",
            "https://%31%32%37.0.0.1/",
            "https://127.0.0.1./",
            "https://[2001:0:1::]/",
            "https://[::127.0.0.1]/",
        ] {
            assert_eq!(policy.check(&url.parse().unwrap()), Err(AddressError::NotPublic), "{url}");
        }
        for url in ["https://93.184.215.14/", "https://[2606:2800:21f::1]/", "https://merchant.example.com/"]
        {
            assert_eq!(policy.check(&url.parse().unwrap()), Ok(()), "{url}");
        }
    }

    #[test]
    fn names_are_taken_as_browsers_take_them_and_those_that_nobody_has_are_not() {
        let policy =
            AddressPolicy { allowed_hosts: vec!["Bücher.test".into(), "hook".into()], ..Default::default() };
        let check = |host: &str| policy.check(&format!("https://{host}/").parse().unwrap());
        let longest = format!("{}.{0}.{0}.{}", "a".repeat(63), "a".repeat(61));
        for host in [
            "merchant.com",
            "MERCHANT.COM",
            "merchant.com.",
            "bücher.com",
            "ＭＥＲＣＨＡＮＴ.com",
            "xn--bcher-kva.com",
            "my_host.merchant.com",
            "example.com",
            "latest",
            "contest.com",
            "local.merchant.com",
            &longest,
            "bücher.test",
            "xn--bcher-kva.test.",
            "hook",
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for (host, suffix) in [
            ("localhost", "localhost"),
            ("LOCALHOST.", "localhost"),
            ("a.localhost", "localhost"),
            ("printer.local", "local"),
            ("metadata.google.internal", "internal"),
            ("a.invalid", "invalid"),
            ("a.test", "test"),
            ("merchant.test", "test"),
            ("a.onion", "onion"),
            ("a.alt", "alt"),
            ("router.home.arpa", "home.arpa"),
            ("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost"),
        ] {
            assert_eq!(check(host), Err(AddressError::SpecialUse(suffix)), "{host}");
        }
        for host in [
            &format!("{}.com", "a".repeat(64)),
            &format!("{longest}a"),
            "a..com",
            ".com",
            "a.com..",
            "a$b.com",
        ] {
            assert_eq!(check(host), Err(AddressError::Impossible), "{host}");
        }
    }

    #[test]
    fn an_exception_is_for_its_own_network() {
        let policy =
            AddressPolicy { allowed_networks: vec!["10.1.0.0/16".parse().unwrap()], ..Default::default() };
        assert!(policy.allows("10.1.2.3".parse().unwrap()));
        assert!(policy.allows("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!policy.allows("10.2.0.1".parse().unwrap()));
    }
}
