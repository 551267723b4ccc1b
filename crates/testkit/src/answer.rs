//! An HTTP answer that was read to its end.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::StreamBody;

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub async fn read(response: Response<StreamBody>) -> Self {
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The value of a header, or the empty string. Fails if the header occurs twice.
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map_or("", |value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} is there twice");
        value
    }

    /// The frames of a stream. Each must be exactly `data: {json}` and an empty line; `[DONE]` becomes `null`.
    pub fn frames(&self) -> Vec<Value> {
        let text = self.text();
        let text = text
            .strip_suffix("\n\n")
            .unwrap_or_else(|| panic!("no empty line at the end: {text}"));
        let json = |frame: &str| match frame.strip_prefix("data: ") {
            Some("[DONE]") => Value::Null,
            Some(json) => {
                serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {frame}"))
            }
            None => panic!("not a frame of data: {frame}"),
        };
        text.split("\n\n").map(json).collect()
    }
}
