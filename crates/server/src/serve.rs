//! From a listener to the router: connections, their time limits, and how they end.

mod io;
mod linger;

use std::convert::Infallible;
use std::io as std_io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::serve::io::TimedIo;
use crate::{App, Options, router};

const HEADER_BYTES_MAX: usize = 64 * 1024;
/// How long to wait when the process has no more file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How serving ends: softly, where what runs may finish, or at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// No new connections; open ones end after their answer.
    pub soft: CancellationToken,
    /// Cuts every connection. What was generated on them is settled by the gateway.
    pub hard: CancellationToken,
}

/// Serves until it is stopped, and returns when the last connection has ended.
pub async fn serve(listener: TcpListener, app: App, stop: Stop) {
    let options = Arc::clone(&app.options);
    let server = Server {
        connections: connections(&options),
        router: router(app),
        stop,
        tasks: TaskTracker::new(),
        options,
    };
    accept(&listener, &server).await;
    // New connections are refused from here on, not left waiting.
    drop(listener);
    server.tasks.close();
    server.tasks.wait().await;
}

#[derive(Debug, Clone)]
struct Server {
    router: Router,
    options: Arc<Options>,
    connections: Builder<TokioExecutor>,
    stop: Stop,
    tasks: TaskTracker,
}

fn connections(options: &Options) -> Builder<TokioExecutor> {
    // HTTP/2 has no time-out for a stream that isn't read, nor for a connection that is idle. A proxy that
    // speaks it to clients speaks HTTP/1.1 to us.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        // Without a timer the time-out would silently be off.
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
}

async fn accept(listener: &TcpListener, server: &Server) {
    let places = Arc::new(Semaphore::new(server.options.connections_max));
    loop {
        let stopped = async {
            tokio::select! {
                () = server.stop.soft.cancelled() => {}
                () = server.stop.hard.cancelled() => {}
            }
        };
        let next = async {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("nobody closes the semaphore");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stopped => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = server.clone();
                server.tasks.clone().spawn(async move {
                    connection(stream, &server).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                if !is_the_clients(&error) {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// A client that has gone again, as opposed to a limit of this process.
fn is_the_clients(error: &std_io::Error) -> bool {
    use std_io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn connection(stream: TcpStream, server: &Server) {
    // Each token is a small packet: it must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY can't be set");
    }
    let spoken = Arc::new(AtomicBool::new(false));
    let io = TimedIo::new(
        stream,
        Arc::clone(&spoken),
        server.options.header_timeout,
        server.options.write_timeout,
    );
    let service = service_fn(|request: Request<Incoming>| {
        spoken.store(true, Ordering::Relaxed);
        let request = linger::linger(request, server.options.linger_timeout, &server.tasks);
        answer(server.router.clone(), request)
    });
    let mut connection = pin!(
        server
            .connections
            .serve_connection(TokioIo::new(io), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = server.stop.hard.cancelled() => return,
        () = server.stop.soft.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = server.stop.hard.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection ended early");
    }
}

async fn answer(
    router: Router,
    request: Request<axum::body::Body>,
) -> Result<Response, Infallible> {
    router.oneshot(request).await
}
