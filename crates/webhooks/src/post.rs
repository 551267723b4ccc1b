//! A POST to addresses that the egress guard has admitted, over a connection that is used once, without redirects,
//! proxies or cookies. Only the status of the response is read.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::egress::{self, Refused, Resolve};
use crate::target::{Host, Target};
use crate::{Webhook, signature::SigningKey};

const USER_AGENT: &str = concat!("weir/", env!("CARGO_PKG_VERSION"));

/// Why an attempt failed. The text contains nothing of the URL's path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer was {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The message of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    /// The time of this attempt, in seconds since 1970.
    pub(crate) timestamp: i64,
    pub(crate) body: &'a str,
}

pub(crate) struct Post {
    resolve: Resolve,
    tls: TlsConnector,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Post")
    }
}

impl Post {
    /// Trusts the certificates that the operating system trusts.
    pub(crate) fn new(resolve: Resolve) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            tracing::warn!("this system trusts no certificates: no https webhook can be reached");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = TlsConnector::from(Arc::new(config));
        Ok(Post { resolve, tls })
    }

    /// Sends a message. An error unless the receiver answers with a 2xx status within the webhook's timeout.
    pub(crate) async fn send(
        &self,
        webhook: &Webhook,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        let timeout = webhook.timeout;
        let status = tokio::time::timeout(timeout, self.exchange(webhook, message)).await;
        let status = status.unwrap_or(Err(Failure::Timeout(timeout)))?;
        if status.is_success() {
            return Ok(());
        }
        Err(Failure::Status(status))
    }

    async fn exchange(
        &self,
        webhook: &Webhook,
        message: Message<'_>,
    ) -> Result<StatusCode, Failure> {
        let target = &webhook.target;
        let admitted = egress::admit(target, webhook.allow_private, &self.resolve).await?;
        // An address that doesn't answer must leave time for the others.
        let each = webhook.timeout / 2;
        let stream = connect(&admitted, each).await.map_err(Failure::Connect)?;
        let request = request(target, &webhook.key, message);
        if !target.tls {
            return status(TokioIo::new(stream), request).await;
        }
        let name = server_name(target).map_err(Failure::Connect)?;
        let stream = self.tls.connect(name, stream).await;
        status(TokioIo::new(stream.map_err(Failure::Connect)?), request).await
    }
}

async fn connect(addresses: &[SocketAddr], each: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match tokio::time::timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failed = error,
            Err(_) => failed = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(failed)
}

fn server_name(target: &Target) -> io::Result<ServerName<'static>> {
    match &target.host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(io::Error::other),
    }
}

fn request(target: &Target, key: &SigningKey, message: Message<'_>) -> Request<Full<Bytes>> {
    let Message {
        id,
        timestamp,
        body,
    } = message;
    Request::builder()
        .method(Method::POST)
        .uri(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", key.sign(id, timestamp, body))
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a target and our own ids are fit for a header")
}

async fn status<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, Failure>
where
    S: Read + Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await?;
    let answer = pin!(sender.send_request(request));
    let connection = pin!(connection);
    // Polling the connection drives the request; when the connection has ended, the answer is there or an error.
    let answer = match select(answer, connection).await {
        Either::Left((answer, _)) => answer?,
        Either::Right((ended, answer)) => {
            ended?;
            answer.await?
        }
    };
    Ok(answer.status())
}
