//! Certificates: an authority, what it signs, and servers that show it and ask for their callers'.

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use tokio_rustls::rustls::server::NoServerSessionStorage;
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{
    self, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, client::danger,
};

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Certificate {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is a good list of names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, key()).expect("an authority can be made"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of a host name or address.
    pub fn certificate(&self, name: &str) -> Certificate {
        self.certificate_with(name, |_| ())
    }

    pub fn certificate_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let (mut params, key) = (params(name), key());
        change(&mut params);
        Certificate { certificate: params.signed_by(&key, &self.0).expect("it can be signed"), key }
    }
}

impl Certificate {
    /// Signed by itself, so by nobody.
    pub fn of_nobody(name: &str) -> Self {
        let key = key();
        Self { certificate: params(name).self_signed(&key).expect("it can be signed"), key }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// A server that shows it and asks for nothing.
    pub fn server(&self) -> TlsAcceptor {
        self.server_by(rustls::ConfigBuilder::<ServerConfig, rustls::WantsVerifier>::with_no_client_auth)
    }

    /// A server that shows it and asks its callers for theirs.
    pub fn asking_server(&self, asking: &Arc<Asking>) -> TlsAcceptor {
        let verifier = Arc::clone(asking) as Arc<dyn ClientCertVerifier>;
        self.server_by(|builder| builder.with_client_cert_verifier(verifier))
    }

    fn server_by(
        &self,
        build: impl FnOnce(
            rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>,
        ) -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
    ) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let versions = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the default versions");
        let mut config =
            build(versions).with_single_cert(vec![self.der()], key).expect("they belong together");
        // Who takes up an earlier session shows no certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        TlsAcceptor::from(Arc::new(config))
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key can be made")
}

fn params(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).expect("a name or an address")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Takes whatever certificate a caller shows, or none, and notes it.
#[derive(Debug)]
pub struct Asking {
    shown: Mutex<Vec<CertificateDer<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Asking {
    pub fn new() -> Arc<Self> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        Arc::new(Self { shown: Mutex::default(), algorithms })
    }

    /// The certificates that callers showed.
    pub fn shown(&self) -> Vec<CertificateDer<'static>> {
        self.shown.lock().expect("no test panics holding it").clone()
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.shown.lock().expect("no test panics holding it").push(certificate.clone().into_owned());
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
