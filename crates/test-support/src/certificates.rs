//! Issues certificates for one test, and runs a TLS server in front of a plain one.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

/// A certificate authority for one test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Certified {
    /// PEM of the certificate.
    pub certificate: String,
    /// PEM of the private key.
    pub key: String,
}

impl Authority {
    /// Creates an authority that only this test trusts.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Returns its certificate as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Issues a certificate for a server with these names or addresses.
    pub fn server(&self, names: &[&str]) -> Certified {
        self.issue(names, |params| params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth))
    }

    /// Issues an expired certificate for a server.
    pub fn expired(&self, names: &[&str]) -> Certified {
        self.issue(names, |params| {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        })
    }

    /// Issues a certificate for a client.
    pub fn client(&self, name: &str) -> Certified {
        self.issue(&[], |params| {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
            params.distinguished_name.push(DnType::CommonName, name);
        })
    }

    fn issue(&self, names: &[&str], how: impl FnOnce(&mut CertificateParams)) -> Certified {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        how(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &*self.0).unwrap();
        Certified { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl Certified {
    /// Writes the two files `NAME.pem` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.pem")), &self.certificate).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }

    /// Starts a TLS server with this certificate that forwards to a plain server.
    pub async fn in_front_of(&self, plain: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = self.acceptor();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut plain = TcpStream::connect(plain).await?;
                    copy_bidirectional(&mut acceptor.accept(stream).await?, &mut plain).await
                });
            }
        });
        address
    }

    fn acceptor(&self) -> TlsAcceptor {
        self.speaking(&[])
    }

    /// Accepts TLS for a server that only speaks HTTP/2.
    pub fn http2(&self) -> TlsAcceptor {
        self.speaking(&[b"h2"])
    }

    fn speaking(&self, protocols: &[&[u8]]) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}
