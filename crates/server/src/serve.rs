//! Connections from the listener to the router: their time limits, and how they end.

mod client;
mod framing;
mod io;
mod linger;
mod request;
mod table;

use std::convert::Infallible;
use std::io as std_io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
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
use hyper_util::server::graceful::GracefulConnection;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

pub use self::client::{ForwardedHeader, TrustedProxies};
pub(crate) use self::framing::BadFraming;
use self::io::TimedIo;
use self::request::Running;
pub(crate) use self::request::{Cut, OnConnection, Refused};
pub(crate) use self::table::ReserveIsFull;
use self::table::{ConnectionTable, Place, TableLimits};
use crate::app::{App, Options};
use crate::router;

const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Pause before accepting again when the process has no file descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest time for an idle connection to close after it was told to make room.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(250);

/// The two ways to stop serving: softly, with running answers finishing, or at once.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Stops accepting connections; open ones end after their current answer.
    pub soft: CancellationToken,
    /// Cuts every connection. The gateway settles what was generated on them.
    pub hard: CancellationToken,
}

/// Serves until a stop, and returns when the last connection has ended.
pub async fn serve(listener: TcpListener, app: App, stop: Stop) {
    let options = Arc::clone(&app.options);
    let server = Server {
        builder: builder(&options),
        table: ConnectionTable::new(TableLimits::new(
            options.connections_max,
            options.connections_per_address_max,
            options.connections_reserve,
        )),
        router: router(app),
        stop,
        tasks: TaskTracker::new(),
        options,
    };
    accept(&listener, &server).await;
    // From here on, the system refuses new connections instead of queueing them.
    drop(listener);
    server.tasks.close();
    server.tasks.wait().await;
}

#[derive(Debug, Clone)]
struct Server {
    router: Router,
    options: Arc<Options>,
    builder: Builder<TokioExecutor>,
    table: ConnectionTable,
    stop: Stop,
    tasks: TaskTracker,
}

fn builder(options: &Options) -> Builder<TokioExecutor> {
    // hyper's HTTP/2 has no timeout for a stream that the client doesn't read, nor for an idle connection. A proxy that
    // speaks HTTP/2 to clients speaks HTTP/1.1 to this server.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        // Without a timer the timeout would silently be off.
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
}

async fn accept(listener: &TcpListener, server: &Server) {
    let stopped = async {
        tokio::select! {
            () = server.stop.soft.cancelled() => {}
            () = server.stop.hard.cancelled() => {}
        }
    };
    tokio::select! {
        () = stopped => {}
        () = accept_all(listener, server) => {}
    }
}

/// Accepts connections one at a time: while one waits for a place in the table, later ones stay in the listener's
/// queue.
async fn accept_all(listener: &TcpListener, server: &Server) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let proxied = server.options.trusted_proxies.include(from.ip());
                let address = (!proxied).then(|| from.ip().into());
                let Some(place) = server.table.enter(address).await else {
                    continue;
                };
                let server = server.clone();
                server.tasks.clone().spawn(async move {
                    connection(stream, from, place, &server).await;
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

/// Whether accepting failed because the client has gone, as opposed to a limit of this process.
fn is_the_clients(error: &std_io::Error) -> bool {
    use std_io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn connection(stream: TcpStream, from: SocketAddr, place: Place, server: &Server) {
    // Each token is a small packet: it must not wait for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY can't be set");
    }
    let spoken = Arc::new(AtomicBool::new(false));
    let cut = Cut::new(server.stop.hard.clone());
    let io = TimedIo::new(
        stream,
        Arc::clone(&spoken),
        Arc::clone(&cut.unread),
        server.options.header_timeout,
        server.options.write_timeout,
    );
    let proxies = &server.options.trusted_proxies;
    let proxies = proxies.include(from.ip()).then_some(proxies);
    let service = service_fn(|mut request: Request<Incoming>| {
        spoken.store(true, Ordering::Relaxed);
        let running = Running::begin(&request, &place, proxies, &cut);
        request.extensions_mut().insert(running.on.clone());
        let request = linger::linger(request, server.options.linger_timeout, &server.tasks);
        answer(server.router.clone(), request, running)
    });
    let connection = server.builder.serve_connection(TokioIo::new(io), service);
    if let Err(error) = served(pin!(connection), &place, &server.stop).await {
        tracing::debug!(error, "a connection ended early");
    }
}

/// The error that ended a connection.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Serves a connection until it ends, is stopped, or has to make room.
async fn served<C: GracefulConnection<Error = Failure>>(
    mut connection: Pin<&mut C>,
    place: &Place,
    stop: &Stop,
) -> Result<(), Failure> {
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.hard.cancelled() => return Ok(()),
        () = stop.soft.cancelled() => connection.as_mut().graceful_shutdown(),
        () = place.is_needed() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => return ended,
                () = stop.hard.cancelled() => return Ok(()),
                () = tokio::time::sleep(CLOSE_TIME_MAX) => {}
            }
            // Otherwise a client that doesn't read its last answer would hold the place. If a request arrived
            // meanwhile, it is served before the connection ends.
            if !place.is_busy() {
                return Ok(());
            }
        }
    }
    tokio::select! {
        ended = connection => ended,
        () = stop.hard.cancelled() => Ok(()),
    }
}

async fn answer(
    router: Router,
    request: Request<axum::body::Body>,
    running: Running,
) -> Result<Response, Infallible> {
    let Ok(response) = router.oneshot(request).await;
    Ok(running.answer(response))
}
