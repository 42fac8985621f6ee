//! A connection to an address that was looked at: the name is resolved once, and what was found is what is connected to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Target;
use super::address::{behind, is_public};
use super::failure::failure;
use crate::model::{HttpGrant, Net};
use crate::sandbox::{HttpFailure, HttpFailureKind as Kind};

/// Addresses of a name that are looked at.
const ADDRESSES_MAX: usize = 16;

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: Send + Sync {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// As the system does it.
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to the target, if each of its addresses may be connected to.
pub(super) async fn connect(target: &Target, grant: &HttpGrant, resolver: &dyn Resolve) -> Result<Box<dyn Stream>, HttpFailure> {
    let addresses = addresses_of(target, grant, resolver).await?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect(SocketAddr::new(address, target.port)).await {
            Ok(stream) => {
                // Small requests should not wait for each other's acknowledgement.
                let _ = stream.set_nodelay(true);
                return if target.secure { secure(stream, target).await } else { Ok(Box::new(stream)) };
            }
            Err(error) => last = Some(error),
        }
    }
    let reason = last.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
    Err(failure(Kind::Refused, format!("{}:{} cannot be connected: {reason}", target.host, target.port)))
}

async fn addresses_of(target: &Target, grant: &HttpGrant, resolver: &dyn Resolve) -> Result<Vec<IpAddr>, HttpFailure> {
    let host = &target.host;
    if let Ok(address) = host.parse::<IpAddr>() {
        // The rule that allowed it names it.
        return Ok(vec![address.to_canonical()]);
    }
    let found = resolver.resolve(host).await.map_err(|error| failure(Kind::NameNotFound, format!("the name {host} cannot be resolved: {error}")))?;
    let addresses: Vec<IpAddr> = found.into_iter().take(ADDRESSES_MAX).map(|address| address.to_canonical()).collect();
    // One that is not allowed among others is an attempt, or a mistake.
    match addresses.iter().find(|address| !is_allowed(**address, &grant.nets)) {
        Some(refused) => {
            let reason = format!("{host} has the address {refused}, which is not public and not granted (rowmill apps grant APP --net {refused})");
            Err(failure(Kind::AddressProhibited, reason))
        }
        None => Ok(addresses),
    }
}

fn is_allowed<'n>(address: IpAddr, nets: impl IntoIterator<Item = &'n Net> + Copy) -> bool {
    let granted = |address: IpAddr| is_public(address) || nets.into_iter().any(|net| net.contains(address));
    granted(address) && behind(address).is_none_or(granted)
}

async fn secure(stream: TcpStream, target: &Target) -> Result<Box<dyn Stream>, HttpFailure> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(make_config);
    let config = CONFIG.clone().map_err(|reason| failure(Kind::Host, reason))?;
    let name = ServerName::try_from(target.host.clone()).map_err(|error| failure(Kind::BadRequest, format!("{}: {error}", target.host)))?;
    let secured = TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let certificate =
            error.get_ref().and_then(|error| error.downcast_ref()).is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
        let kind = if certificate { Kind::TlsCertificate } else { Kind::Tls };
        failure(kind, format!("{}:{} cannot be talked to securely: {error}", target.host, target.port))
    })?;
    Ok(Box::new(secured))
}

/// Trusts whom the system trusts (and `SSL_CERT_FILE`, `SSL_CERT_DIR`).
fn make_config() -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    let (usable, _) = roots.add_parsable_certificates(loaded.certs);
    if usable == 0 {
        let errors: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(format!("the system has no certificates to trust: {}", errors.join("; ")));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn allowed(address: &str, nets: &[&str]) -> bool {
        let nets: BTreeSet<Net> = nets.iter().map(|net| net.parse().unwrap()).collect();
        is_allowed(address.parse::<IpAddr>().unwrap().to_canonical(), &nets)
    }

    #[test]
    fn what_is_not_public_must_be_granted_and_what_lies_behind_it_too() {
        assert!(allowed("8.8.8.8", &[]) && !allowed("10.1.2.3", &[]));
        assert!(allowed("10.1.2.3", &["10.1.0.0/16"]) && !allowed("10.2.2.3", &["10.1.0.0/16"]));
        assert!(allowed("::ffff:10.1.2.3", &["10.1.0.0/16"]));
        assert!(!allowed("64:ff9b::7f00:1", &["64:ff9b::/96"]) && allowed("64:ff9b::808:808", &["64:ff9b::/96"]));
        assert!(allowed("64:ff9b::7f00:1", &["64:ff9b::/96", "127.0.0.1"]));
    }
}
