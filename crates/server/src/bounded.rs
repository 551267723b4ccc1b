//! Answers that cost nothing, and so must not be large: of bounded size, and counted until they are sent.

use std::io::{self, Write};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

use crate::error::ApiError;
use crate::holding::Holding;
use crate::in_flight::{Claim, TooManyBytes};

/// Bytes that are claimed at a time.
const CLAIM_BYTES: usize = 64 * 1024;

/// The value as JSON, which takes a while if it is large. Refused as soon as it would be longer than `bytes_max`; the
/// error names `param`.
pub(crate) fn json(
    value: &impl Serialize,
    bytes_max: usize,
    claim: Claim,
    param: &'static str,
) -> Result<Response, ApiError> {
    let mut text = Bounded {
        bytes: Vec::new(),
        bytes_max,
        claim,
        claimed: 0,
        refused: None,
    };
    let written = serde_json::to_writer(&mut text, value);
    match (text.refused, written) {
        (Some(Refused::TooLong), _) => {
            let message = format!("{param}: the answer would be longer than {bytes_max} bytes");
            Err(ApiError::invalid(param, message))
        }
        (Some(Refused::InFlight(too_many)), _) => Err(too_many.into()),
        (None, Err(error)) => {
            tracing::error!(%error, "an answer can't be written as JSON");
            Err(ApiError::internal())
        }
        (None, Ok(())) => {
            let body = Body::new(Holding::new(Body::from(text.bytes), text.claim));
            let json = HeaderValue::from_static("application/json");
            Ok(([(header::CONTENT_TYPE, json)], body).into_response())
        }
    }
}

/// Takes bytes as long as they may be taken.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    claim: Claim,
    claimed: usize,
    refused: Option<Refused>,
}

#[derive(Debug, Clone, Copy)]
enum Refused {
    TooLong,
    InFlight(TooManyBytes),
}

impl Bounded {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let length = self.bytes.len() + bytes.len();
        if length > self.bytes_max {
            return Err(Refused::TooLong);
        }
        if length > self.claimed {
            let more = (length - self.claimed).next_multiple_of(CLAIM_BYTES);
            let more = more.min(self.bytes_max - self.claimed);
            self.claim.grow(more).map_err(Refused::InFlight)?;
            self.claimed += more;
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.take(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(refused) => {
                self.refused = Some(refused);
                Err(io::Error::other("refused"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
