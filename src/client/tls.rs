//! Whom a TLS connection trusts, and who we say we are.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootsError {
    #[error("cannot read certificates from {0}; name a PEM file")]
    Unreadable(PathBuf),
    #[error("{0} holds no certificate; name a PEM file with at least one")]
    Empty(PathBuf),
    #[error("{0} holds no usable private key, or not that of the client certificate; name its PEM file")]
    ClientKey(PathBuf),
}

/// A set of trusted authorities, ready to verify peers. Cheap to clone.
#[derive(Clone)]
pub struct TlsRoots(Arc<ClientConfig>);

/// The PEM files of a certificate with its chain, and of its key.
pub struct ClientCertificate<'p> {
    pub certificate: &'p Path,
    pub key: &'p Path,
}

impl TlsRoots {
    /// The system's authorities, read once. A system without any trusts nobody: plain http works,
    /// every TLS connection fails.
    #[must_use]
    pub fn system() -> Self {
        static SYSTEM: OnceLock<TlsRoots> = OnceLock::new();
        SYSTEM
            .get_or_init(|| {
                let mut config = trusting(system_roots()).with_no_client_auth();
                config.alpn_protocols = alpn();
                Self(Arc::new(config))
            })
            .clone()
    }

    /// The authorities of a PEM file and nobody else, or the system's; with a certificate to show to
    /// peers that ask for one.
    ///
    /// # Errors
    /// A file cannot be read or holds nothing usable.
    pub fn from_pem_files(
        authorities: Option<&Path>,
        client: Option<&ClientCertificate<'_>>,
    ) -> Result<Self, TlsRootsError> {
        let roots = match authorities {
            None if client.is_none() => return Ok(Self::system()),
            None => system_roots(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let (usable, _) = roots.add_parsable_certificates(certificates(path)?);
                if usable == 0 {
                    return Err(TlsRootsError::Empty(path.to_owned()));
                }
                roots
            }
        };
        let mut config = match client {
            None => trusting(roots).with_no_client_auth(),
            Some(&ClientCertificate { certificate, key }) => {
                let unusable = || TlsRootsError::ClientKey(key.to_owned());
                let chain = certificates(certificate)?;
                if chain.is_empty() {
                    return Err(TlsRootsError::Empty(certificate.to_owned()));
                }
                let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unusable())?;
                trusting(roots).with_client_auth_cert(chain, key).map_err(|_| unusable())?
            }
        };
        config.alpn_protocols = alpn();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands; the peer's certificate must name `host`, a name or a literal address.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsRootsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|_| TlsRootsError::Unreadable(path.to_owned()))
}

fn trusting(roots: RootCertStore) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    // Named here, so that no crate's feature decides which cryptography runs.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default protocol versions")
        .with_root_certificates(roots)
}

fn alpn() -> Vec<Vec<u8>> {
    vec![b"http/1.1".to_vec()]
}
