//! A connection with time limits that HTTP itself doesn't have.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream that fails when the client reads nothing for too long, or sends no first request in time. The latter is
/// needed because hyper runs no timer before it has seen the first bytes and knows the version of HTTP.
pub(crate) struct TimedIo<S> {
    stream: S,
    spoken: Arc<AtomicBool>,
    unread: Arc<AtomicBool>,
    first_request: Pin<Box<Sleep>>,
    write_timeout: Duration,
    /// The timer of a write that is waiting.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedIo<S> {
    /// `spoken` becomes true with the first request. `unread` is set when the client has read nothing for
    /// `write_timeout`.
    pub(crate) fn new(
        stream: S,
        spoken: Arc<AtomicBool>,
        unread: Arc<AtomicBool>,
        first_request_timeout: Duration,
        write_timeout: Duration,
    ) -> Self {
        let first_request = Box::pin(tokio::time::sleep(first_request_timeout));
        TimedIo {
            stream,
            spoken,
            unread,
            first_request,
            write_timeout,
            stuck: None,
        }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let deadline = Instant::now() + self.write_timeout;
        let stuck = self
            .stuck
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stuck.as_mut().poll(context) {
            Poll::Ready(()) => {
                self.unread.store(true, Ordering::Relaxed);
                Poll::Ready(Err(timed_out("the client doesn't read")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buf);
        let silent = read.is_pending() && !self.spoken.load(Ordering::Relaxed);
        if silent && self.first_request.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(timed_out("no request came")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedIo<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, buf);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bufs);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const FIRST_REQUEST: Duration = Duration::from_secs(15);
    const WRITE: Duration = Duration::from_secs(30);

    fn pair(spoken: bool) -> (TimedIo<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(4);
        (
            TimedIo::new(
                ours,
                Arc::new(AtomicBool::new(spoken)),
                Arc::default(),
                FIRST_REQUEST,
                WRITE,
            ),
            theirs,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_cut_off() {
        let (mut io, _theirs) = pair(false);
        let start = Instant::now();
        let error = io.read_u8().await.unwrap_err();
        assert_eq!(
            (error.kind(), start.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, FIRST_REQUEST.as_secs())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_made_a_request_may_be_silent() {
        let (mut io, _theirs) = pair(true);
        tokio::time::timeout(Duration::from_hours(1), io.read_u8())
            .await
            .unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut io, mut theirs) = pair(true);
        io.write_all(b"1234").await.unwrap();
        // Each byte that the client reads restarts the timeout.
        let start = Instant::now();
        let (write, ()) = tokio::join!(io.write_all(b"56"), async {
            tokio::time::sleep(WRITE - Duration::from_secs(1)).await;
            theirs.read_u8().await.unwrap();
        });
        assert_eq!(write.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), WRITE * 2 - Duration::from_secs(1));
        assert!(io.unread.load(Ordering::Relaxed));
    }
}
