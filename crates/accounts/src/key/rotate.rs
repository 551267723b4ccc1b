//! Rotating keys: new secrets for them.

use jiff::{SignedDuration, Timestamp};

use crate::audit::By;
use crate::clock;
use crate::db::{Connection, values};
use crate::error::AdminError;
use crate::ids::{KeyId, random};
use crate::key::admin::{audit, locked, revoked, whole};
use crate::key::{NewKey, SECRET_LEN, Secret, columns, hash, no_key, public_part, read};
use crate::writer::{Operation, TxResult};

/// The longest that an old secret is accepted beside the new one.
const GRACE_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Gives a key a new secret. It stays the same key: its usage, caps and limits go on. At most one old secret is
/// accepted beside the new one: rotating again before the grace is over ends the older one at once. But a new secret
/// that was never used, as it was lost on its way or the command was repeated, doesn't become the old one: the secret
/// that is in use stays the old one.
#[derive(Debug)]
pub(crate) struct RotateKey {
    id: String,
    secret: Secret,
    grace: SignedDuration,
    by: By,
}

impl RotateKey {
    pub(crate) fn new(id: &str, grace: SignedDuration, by: By) -> Result<Self, AdminError> {
        if grace.is_negative() || grace > GRACE_MAX {
            let days = GRACE_MAX.as_hours().div_euclid(24);
            let message = format!("an old secret is accepted for 0 seconds to {days} days more");
            return Err(AdminError::invalid("grace_seconds", message));
        }
        Ok(RotateKey {
            id: public_part(id),
            secret: Secret(random(SECRET_LEN)),
            grace,
            by,
        })
    }

    /// Refuses a grace where things expire by a time `lapse` that isn't now: it would be counted from a clock that can't
    /// be trusted.
    pub(crate) fn check_grace(&self, lapse: Timestamp) -> Result<(), AdminError> {
        match self.grace.is_positive() && lapse != self.by.now {
            true => Err(AdminError::untrusted_clock("grace_seconds")),
            false => Ok(()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.by.now
    }
}

/// A rotation that isn't done yet: the new secret can be shown while the old one is still in force.
#[derive(Debug)]
pub struct RotationDraft(pub(crate) RotateKey);

impl RotationDraft {
    pub(crate) fn new(id: &str, grace: SignedDuration, by: By) -> Result<Self, AdminError> {
        RotateKey::new(id, grace, by).map(RotationDraft)
    }

    /// The key with its new secret.
    pub fn key(&self) -> NewKey {
        whole(KeyId::from(self.0.id.clone()), &self.0.secret)
    }
}

impl Operation for RotateKey {
    type Done = ();
    type Refused = AdminError;
    type Answer = Result<NewKey, AdminError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), AdminError> {
        let Some(old) = locked(connection, &self.id).await? else {
            return Ok(Err(no_key(&self.id)));
        };
        let lapse = clock::lapse(connection, self.by.now).await?;
        if let Err(refusal) = self.check_grace(lapse) {
            return Ok(Err(refusal));
        }
        if old.revoked_at.is_some() {
            return Ok(Err(revoked(&self.id)));
        }
        let until = lapse.saturating_add(self.grace);
        let row = connection
            .row(
                concat!(
                    "UPDATE api_key SET secret_hash = $3, rotated_at = $4, secret_used_at = NULL, previous_until = $2,
                         previous_hash = CASE WHEN secret_used_at IS NULL AND previous_until > $5 THEN previous_hash
                             ELSE secret_hash END
                     WHERE id = $1 RETURNING ",
                    columns!()
                ),
                values![
                    self.id.as_str(),
                    until.unwrap_or(Timestamp::MAX),
                    hash(self.secret.expose()).as_slice(),
                    self.by.now,
                    lapse,
                ],
            )
            .await?;
        let new = row.as_ref().map(read).transpose()?;
        audit(
            connection,
            &self.by,
            "key.rotate",
            [Some(&old), new.as_ref()],
        )
        .await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), AdminError>) -> Result<NewKey, AdminError> {
        outcome??;
        Ok(whole(KeyId::from(self.id), &self.secret))
    }
}
