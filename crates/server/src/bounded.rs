//! Answers to uncharged requests. Their size is bounded, and counted as bytes in flight until they are sent.

use std::io::{self, Write};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

use crate::error::ApiError;
use crate::holding::Holding;
use crate::in_flight::{Claim, TooManyBytes};

/// Number of bytes that are added to a claim at a time.
const CLAIM_BYTES: usize = 64 * 1024;

/// Serializes the value as JSON, which takes long if it is large. Fails as soon as the text exceeds `bytes_max`; the
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

/// Collects bytes up to `bytes_max`, as far as the claim can grow.
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
