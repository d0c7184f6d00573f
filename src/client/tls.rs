//! Whom a TLS connection trusts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Why there is nobody to trust.
#[derive(Debug, thiserror::Error)]
pub enum TlsRootsError {
    #[error("cannot read certificates from {0}; name a PEM file")]
    Unreadable(PathBuf),
    #[error("{0} holds no certificate; name a PEM file with at least one authority")]
    Empty(PathBuf),
}

/// A set of trusted authorities, ready to verify peers. Cheap to clone.
#[derive(Clone)]
pub struct TlsRoots(Arc<ClientConfig>);

impl TlsRoots {
    /// The system's authorities, read once. A system without any trusts nobody: plain http works,
    /// every TLS connection fails.
    #[must_use]
    pub fn system() -> Self {
        static SYSTEM: OnceLock<TlsRoots> = OnceLock::new();
        SYSTEM
            .get_or_init(|| {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                Self::trusting(roots)
            })
            .clone()
    }

    /// The authorities of a PEM file, and nobody else.
    ///
    /// # Errors
    /// The file cannot be read, or holds no usable certificate.
    pub fn from_pem_file(path: &Path) -> Result<Self, TlsRootsError> {
        let unreadable = || TlsRootsError::Unreadable(path.to_owned());
        let certificates = CertificateDer::pem_file_iter(path)
            .map_err(|_| unreadable())?
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| unreadable())?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(certificates);
        if usable == 0 {
            return Err(TlsRootsError::Empty(path.to_owned()));
        }
        Ok(Self::trusting(roots))
    }

    fn trusting(roots: RootCertStore) -> Self {
        // Named here, so that no crate's feature decides which cryptography runs.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    /// Shakes hands; the peer's certificate must name `host`, a name or a literal address.
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}
