-- What made a key, where the caller gave it a number: the same one again makes no second key. Its secret is not here,
-- so that nobody can be shown it again.
ALTER TABLE api_key ADD COLUMN idempotency_key TEXT;
CREATE UNIQUE INDEX api_key_idempotency ON api_key (idempotency_key);
