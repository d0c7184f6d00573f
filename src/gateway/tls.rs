//! TLS on the listener: one certificate and its key, taken again when their files change.
//!
//! TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. New files that do not fit together change nothing: the
//! certificate in use stays in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why a certificate and a key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("`server.tls_cert_file` {0} cannot be read, or holds no PEM certificate")]
    Certificate(PathBuf),
    #[error("`server.tls_key_file` {0} cannot be read, or holds no usable PEM private key")]
    Key(PathBuf),
    #[error("the certificate in {0} is not that of the key in {1}; name two files that belong together")]
    Mismatch(PathBuf, PathBuf),
}

/// The files, and what they held last.
pub struct ListenerTls {
    certificate: PathBuf,
    key: PathBuf,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

struct Current(RwLock<Arc<CertifiedKey>>);

/// When both files were written, and how large they are: enough to see that they changed.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl ListenerTls {
    /// # Errors
    /// See [`TlsError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let current = Arc::new(Current(RwLock::new(Arc::new(read(certificate, key)?))));
        let resolver = Arc::clone(&current) as Arc<dyn ResolvesServerCert>;
        // Named here, so that no crate's feature decides which cryptography runs.
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default protocol versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Arc::new(Self { certificate, key, current, acceptor }))
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// The client is gone, or does not speak TLS as we do.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    /// Looks after the files until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = None;
        let watching = async {
            loop {
                let (this, before) = (Arc::clone(&self), seen);
                // Files may be on a disk that is slow, or gone.
                let looking = tokio::task::spawn_blocking(move || this.look(before));
                if let Ok(stamp) = looking.await {
                    seen = Some(stamp);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Takes the files where they are not as they were `before`; at the first look they were just read,
    /// but may have changed since.
    fn look(&self, before: Option<Stamp>) -> Stamp {
        let stamp = [&self.certificate, &self.key].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        });
        if before == Some(stamp) {
            return stamp;
        }
        match read(&self.certificate, &self.key) {
            Ok(fresh) => {
                let mut current = self.current.0.write().unwrap_or_else(PoisonError::into_inner);
                if current.cert != fresh.cert {
                    *current = Arc::new(fresh);
                    tracing::info!("the listener's certificate was taken anew");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the listener's new certificate is of no use; the old one stays");
            }
        }
        stamp
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let unusable = || TlsError::Certificate(certificate.to_owned());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|_| unusable())?;
    if chain.is_empty() {
        return Err(unusable());
    }
    let unusable = || TlsError::Key(key.to_owned());
    let signing = PrivateKeyDer::from_pem_file(key).map_err(|_| unusable())?;
    let signing = any_supported_type(&signing).map_err(|_| unusable())?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        // Where the key does not say what its public half is, the handshake tells.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(_) => Err(TlsError::Mismatch(certificate.to_owned(), key.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = (directory.join(format!("{name}.pem")), directory.join(format!("{name}.key")));
        std::fs::write(&files.0, made.cert.pem()).unwrap();
        std::fs::write(&files.1, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn now(tls: &ListenerTls) -> Vec<CertificateDer<'static>> {
        tls.current.0.read().unwrap().cert.clone()
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (write(directory.path(), "a"), write(directory.path(), "b"));
        assert!(ListenerTls::load(&a.0, &a.1).is_ok());
        assert!(matches!(ListenerTls::load(&a.0, &b.1), Err(TlsError::Mismatch(..))));
        assert!(matches!(ListenerTls::load(&a.1, &a.1), Err(TlsError::Certificate(_))));
        assert!(matches!(ListenerTls::load(&a.0, &a.0), Err(TlsError::Key(_))));
        assert!(matches!(
            ListenerTls::load(&directory.path().join("none"), &a.1),
            Err(TlsError::Certificate(_))
        ));
    }

    #[test]
    fn changed_files_are_taken_once_they_fit_and_the_old_pair_stays_until_then() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (write(directory.path(), "a"), write(directory.path(), "b"));
        let tls = ListenerTls::load(&a.0, &a.1).unwrap();
        let (first, seen) = (now(&tls), tls.look(None));
        std::fs::copy(&b.0, &a.0).unwrap();
        let seen = tls.look(Some(seen));
        assert_eq!(now(&tls), first, "half of a new pair is of no use");
        std::fs::copy(&b.1, &a.1).unwrap();
        tls.look(Some(seen));
        assert_ne!(now(&tls), first);
    }
}
