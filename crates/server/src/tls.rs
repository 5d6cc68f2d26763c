//! TLS towards clients, from files that may be replaced while we run.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use entrepot_core::config::Tls;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Accepts with the certificate that is current at the time.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<ArcSwap<ServerConfig>>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("proxy.tls.cert: {0}: no certificate can be read from it: {1}")]
    Cert(String, rustls::pki_types::pem::Error),
    #[error("proxy.tls.key: {0}: no private key can be read from it: {1}")]
    Key(String, rustls::pki_types::pem::Error),
    #[error("proxy.tls: {cert} and {key} do not go together: {error}")]
    Pair { cert: String, key: String, error: rustls::Error },
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl Acceptor {
    pub(crate) fn new(tls: &Tls) -> Result<Acceptor, TlsError> {
        Ok(Acceptor(Arc::new(ArcSwap::from_pointee(load(tls)?))))
    }

    /// Reads the files again; connections that are open keep what they have.
    pub(crate) fn reload(&self, tls: &Tls) -> Result<(), TlsError> {
        self.0.store(Arc::new(load(tls)?));
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.load_full()).accept(stream).await
    }
}

fn load(tls: &Tls) -> Result<ServerConfig, TlsError> {
    let cert_error = |error| TlsError::Cert(tls.cert.clone(), error);
    let chain: Vec<_> = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(|certificates| certificates.collect())
        .map_err(cert_error)?;
    if chain.is_empty() {
        return Err(cert_error(rustls::pki_types::pem::Error::NoItemsFound));
    }
    let key =
        PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| TlsError::Key(tls.key.clone(), error))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Pair { cert: tls.cert.clone(), key: tls.key.clone(), error })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
