//! Signatures as specified by Standard Webhooks, so that receivers need no library of ours.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// The bounds that the specification sets.
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The secret that signs a webhook's messages. `Debug` doesn't show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "it must be {PREFIX} and {KEY_BYTES_MIN} to {KEY_BYTES_MAX} random bytes in base64, as from \
     `echo whsec_$(openssl rand -base64 32)`"
)]
pub struct WrongKey;

impl FromStr for SigningKey {
    type Err = WrongKey;

    fn from_str(text: &str) -> Result<Self, WrongKey> {
        let encoded = text.strip_prefix(PREFIX).ok_or(WrongKey)?;
        let key = BASE64.decode(encoded).map_err(|_| WrongKey)?;
        if (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
            return Ok(SigningKey(key));
        }
        Err(WrongKey)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(…)")
    }
}

impl SigningKey {
    /// The value of the header `webhook-signature`: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
    pub(crate) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        for part in [id, ".", &timestamp.to_string(), ".", body] {
            mac.update(part.as_bytes());
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_reference_signs() {
        let key: SigningKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = key.sign(id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_weak_secret_is_none() {
        let check = |secret: &str, good: bool| {
            let key = secret.parse::<SigningKey>();
            assert_eq!(key.is_ok(), good, "{secret}");
            assert_eq!(key.is_ok(), format!("{key:?}") == "Ok(SigningKey(…))");
        };
        let bytes = |count: usize| format!("whsec_{}", STANDARD.encode(vec![7; count]));
        check("", false);
        check("whsec_", false);
        check("hunter2", false);
        check("whsec_hunter2", false);
        check("whsec_not base64 at all, but long enough", false);
        check("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", false);
        check(&bytes(23), false);
        check(&bytes(24), true);
        check(&bytes(32), true);
        check(bytes(32).trim_end_matches('='), true);
        check(&bytes(64), true);
        check(&bytes(65), false);
    }
}
