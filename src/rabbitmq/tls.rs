//! TLS to RabbitMQ, for `amqps` URLs. There is no mode without verification, because it would send the password to
//! any server.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

/// TLS settings. The files are read for every connection, so that renewed ones take effect.
#[derive(Debug, Clone, Default)]
pub struct BrokerTls {
    /// PEM; trusted instead of the system's certificates.
    pub ca_file: Option<PathBuf>,
    /// Accept a certificate of the CA for any name. Only with a CA file, because otherwise any public certificate
    /// would be accepted.
    pub any_name: bool,
    /// PEM: certificate with its chain, and private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl BrokerTls {
    pub(super) async fn connector(&self) -> io::Result<RustlsConnector> {
        let client = match &self.client {
            None => None,
            Some((certificate, key)) => Some((certificates(certificate).await?, private_key(key).await?)),
        };
        let Some(ca_file) = &self.ca_file else {
            let system = RustlsConnectorConfig::new_with_platform_verifier();
            return match client {
                Some((chain, key)) => system.connector_with_single_cert(chain, key),
                None => system.connector_with_no_client_auth(),
            };
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca_file).await? {
            roots.add(certificate).map_err(|error| unusable(ca_file, error))?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .map_err(|error| unusable(ca_file, error))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = if self.any_name {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
        } else {
            builder.with_webpki_verifier(verifier)
        };
        let config = match client {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?,
            None => builder.with_no_client_auth(),
        };
        Ok(config.into())
    }
}

async fn certificates(file: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let pem = tokio::fs::read(file).await.map_err(|error| unusable(file, error))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(file, "the file has no PEM certificate")),
        Err(error) => Err(unusable(file, error)),
    }
}

async fn private_key(file: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let pem = tokio::fs::read(file).await.map_err(|error| unusable(file, error))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unusable(file, "the file has no PEM private key"))
}

fn unusable(file: &Path, reason: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {reason}", file.display()))
}

/// Verifies everything but the name (`verify-ca`).
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is verified last: chain and dates are valid by then.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Returns whether a certificate was not accepted, which waiting does not resolve.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| {
        matches!(
            inner.downcast_ref(),
            Some(Error::InvalidCertificate(_) | Error::AlertReceived(_) | Error::NoCertificatesPresented)
        )
    })
}
