-- The idempotency key with which a key was made, if there was one: used again, it makes no second key. The secret isn't
-- stored, so it can't be shown again.
ALTER TABLE api_key ADD COLUMN idempotency_key TEXT;
CREATE UNIQUE INDEX api_key_idempotency ON api_key (idempotency_key);
