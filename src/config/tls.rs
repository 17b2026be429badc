//! TLS of the database and the broker: trusted certificates, and the client certificate.

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use secrecy::ExposeSecret;
use serde::Deserialize;
use sqlx::postgres::PgSslMode;
use url::Url;

use super::{BrokerSection, DatabaseSection};
use crate::{postgres::DatabaseTls, rabbitmq::BrokerTls};

/// The sections `[database.tls]` and `[broker.tls]`. All files are PEM.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// How far the connection is checked; the URL's mode if empty.
    pub mode: Option<TlsMode>,
    /// PEM; replaces the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM of the certificate that the worker shows; needs `client_key_file`.
    pub client_certificate_file: Option<PathBuf>,
    /// PEM of its private key.
    pub client_key_file: Option<PathBuf>,
}

/// The TLS modes of libpq (<https://www.postgresql.org/docs/current/libpq-ssl.html>, table 34.1). `amqps` has the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "libpq's modes by libpq's names")]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl TlsMode {
    fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

impl TlsSection {
    fn client(&self) -> Option<(PathBuf, PathBuf)> {
        self.client_certificate_file.clone().zip(self.client_key_file.clone())
    }

    fn is_set(&self) -> bool {
        self.mode.is_some()
            || self.ca_file.is_some()
            || self.client_certificate_file.is_some()
            || self.client_key_file.is_some()
    }

    fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(ca_problem(&format!("{name}.ca_file"), self.ca_file.as_deref()));
        problems.extend(ca_problem(
            &format!("{name}.client_certificate_file"),
            self.client_certificate_file.as_deref(),
        ));
        if let Some(file) = &self.client_key_file {
            let key = std::fs::read(file).map_err(|error| error.to_string());
            // Not the parser's error, which might quote the file.
            let key = key.and_then(|pem| {
                PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| "the file has no PEM private key without a passphrase".into())
            });
            problems
                .extend(key.err().map(|error| format!("{name}.client_key_file {}: {error}", file.display())));
        }
        if self.client_certificate_file.is_some() != self.client_key_file.is_some() {
            problems.push(format!("{name}: client_certificate_file and client_key_file go together"));
        }
        problems
    }
}

impl BrokerSection {
    pub(super) fn tls(&self) -> BrokerTls {
        BrokerTls {
            ca_file: self.tls.ca_file.clone(),
            any_name: self.tls.mode == Some(TlsMode::VerifyCa),
            client: self.tls.client(),
        }
    }

    pub(super) fn tls_problems(&self) -> Vec<String> {
        let mut problems = self.tls.problems("broker.tls");
        let is_amqps = |url: &str| url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("amqps://"));
        if self.tls.is_set() && self.url.as_ref().is_some_and(|url| !is_amqps(url.expose_secret())) {
            problems.push("broker.tls is set, but broker.url does not begin with amqps://".into());
        }
        match self.tls.mode {
            Some(mode) if !mode.verifies() => {
                problems.push("broker.tls.mode must be verify-full or verify-ca".into());
            }
            Some(TlsMode::VerifyCa) if self.tls.ca_file.is_none() => problems.push(
                "broker.tls.mode verify-ca needs broker.tls.ca_file: otherwise any public certificate would be accepted"
                    .into(),
            ),
            _ => {}
        }
        problems
    }
}

impl DatabaseSection {
    pub(super) fn tls(&self) -> DatabaseTls {
        DatabaseTls {
            mode: self.tls.mode.map(|mode| match mode {
                TlsMode::Disable => PgSslMode::Disable,
                TlsMode::Prefer => PgSslMode::Prefer,
                TlsMode::Require => PgSslMode::Require,
                TlsMode::VerifyCa => PgSslMode::VerifyCa,
                TlsMode::VerifyFull => PgSslMode::VerifyFull,
            }),
            ca_file: self.tls.ca_file.clone(),
            client: self.tls.client(),
        }
    }

    /// Rejects a CA file that would not be used: with `require`, libpq verifies if there is one, and sqlx does not.
    pub(super) fn tls_problems(&self) -> Vec<String> {
        let mut problems = self.tls.problems("database.tls");
        let url = self.url.as_ref().and_then(|url| url.expose_secret().parse::<Url>().ok());
        let of_url = |names: &[&str]| {
            let mut pairs = url.iter().flat_map(Url::query_pairs);
            pairs.find(|(name, _)| names.contains(&name.as_ref())).map(|(_, value)| value.into_owned())
        };
        let verifies = match self.tls.mode {
            Some(mode) => mode.verifies(),
            None => of_url(&["sslmode", "ssl-mode"]).is_some_and(|mode| mode.starts_with("verify-")),
        };
        let has_ca =
            self.tls.ca_file.is_some() || of_url(&["sslrootcert", "ssl-root-cert", "ssl-ca"]).is_some();
        if has_ca && !verifies {
            problems.push(
                "database.tls.mode (or sslmode of database.url) is neither verify-ca nor verify-full: the CA file would not be used"
                    .into(),
            );
        }
        problems
    }
}

/// Returns what is wrong with a file of certificates, if anything is.
pub(super) fn ca_problem(setting: &str, file: Option<&Path>) -> Option<String> {
    let file = file?;
    certificates(file).err().map(|problem| format!("{setting} {}: {problem}", file.display()))
}

/// Reads the certificates of a file that was valid when the configuration was read. If it is gone since then, no
/// certificate is trusted.
pub(super) fn roots(file: Option<&Path>) -> Option<Vec<CertificateDer<'static>>> {
    file.map(|file| certificates(file).unwrap_or_default())
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(file).map_err(|error| error.to_string())?;
    match CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err("the file has no PEM certificate".into()),
    }
}
