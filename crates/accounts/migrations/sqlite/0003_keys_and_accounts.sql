-- Roles, spend caps, limits and rotation of keys; limits, credit limits and suspension of accounts; promo credit;
-- the actors of movements of money; usage by day; an audit log.

ALTER TABLE account ADD COLUMN suspended_at        INTEGER;
ALTER TABLE account ADD COLUMN suspended_reason    TEXT;
ALTER TABLE account ADD COLUMN low_balance         INTEGER;     -- the threshold of balance.low (0004 moves it to balance)
ALTER TABLE account ADD COLUMN tier                TEXT;        -- T1 to T5; NULL if the top-ups decide
ALTER TABLE account ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute > 0);
ALTER TABLE account ADD COLUMN tokens_per_minute   INTEGER CHECK (tokens_per_minute > 0);
ALTER TABLE account ADD COLUMN concurrent_requests INTEGER CHECK (concurrent_requests > 0);

ALTER TABLE api_key ADD COLUMN role                TEXT NOT NULL DEFAULT 'inference';
ALTER TABLE api_key ADD COLUMN rotated_at          INTEGER;
ALTER TABLE api_key ADD COLUMN previous_hash       BLOB CHECK (length(previous_hash) = 32);
ALTER TABLE api_key ADD COLUMN previous_until      INTEGER;     -- until when the secret before the last rotation is accepted
ALTER TABLE api_key ADD COLUMN last_used_at        INTEGER;
ALTER TABLE api_key ADD COLUMN cap_total           INTEGER CHECK (cap_total >= 0);
ALTER TABLE api_key ADD COLUMN cap_month           INTEGER CHECK (cap_month >= 0);
ALTER TABLE api_key ADD COLUMN cap_day             INTEGER CHECK (cap_day >= 0);
ALTER TABLE api_key ADD COLUMN requests_per_minute INTEGER CHECK (requests_per_minute > 0);
ALTER TABLE api_key ADD COLUMN tokens_per_minute   INTEGER CHECK (tokens_per_minute > 0);
ALTER TABLE api_key ADD COLUMN concurrent_requests INTEGER CHECK (concurrent_requests > 0);

-- Free promo credit, which is a part of posted - held. The rest of posted - held is cash, which may go down to minus
-- the credit limit and no further, so that promo credit can expire at any time.
ALTER TABLE balance ADD COLUMN promo INTEGER NOT NULL DEFAULT 0
    CHECK (promo >= 0 AND posted + credit_limit - held - promo >= 0);
-- When the first free promo expires: after that nothing is held before the expiry is booked. NULL without free promos.
ALTER TABLE balance ADD COLUMN promo_expires_at INTEGER;
CREATE INDEX balance_promo ON balance (promo_expires_at) WHERE promo_expires_at IS NOT NULL;

-- A promo: promo credit with an expiry. Free and held are what is left of it.
CREATE TABLE promo (
    id                 INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    account            TEXT    NOT NULL REFERENCES account (id),
    ledger_transaction INTEGER NOT NULL UNIQUE REFERENCES ledger_transaction (id),
    amount             INTEGER NOT NULL CHECK (amount > 0),
    free               INTEGER NOT NULL CHECK (free >= 0),
    held               INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    created_at         INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    expired_at         INTEGER,                             -- when the expiry was booked
    CHECK (free + held <= amount)
) STRICT;

CREATE INDEX promo_free ON promo (account, expires_at, id) WHERE free > 0;
CREATE INDEX promo_account ON promo (account, id);

-- The promo credit that a hold has of a promo, and how much of it was used for the cost and refunded.
CREATE TABLE promo_use (
    hold     INTEGER NOT NULL REFERENCES hold (id),
    promo    INTEGER NOT NULL REFERENCES promo (id),
    held     INTEGER NOT NULL CHECK (held >= 0),
    used     INTEGER NOT NULL DEFAULT 0 CHECK (used >= 0),
    refunded INTEGER NOT NULL DEFAULT 0 CHECK (refunded >= 0 AND refunded <= used),
    PRIMARY KEY (hold, promo)
) STRICT, WITHOUT ROWID;

ALTER TABLE hold ADD COLUMN promo INTEGER NOT NULL DEFAULT 0 CHECK (promo >= 0 AND promo <= amount);
ALTER TABLE usage_record ADD COLUMN promo INTEGER NOT NULL DEFAULT 0 CHECK (promo >= 0 AND promo <= cost);

-- The actor of a transaction that no request caused, and the usage record that a refund is for.
CREATE TABLE movement (
    ledger_transaction INTEGER NOT NULL PRIMARY KEY REFERENCES ledger_transaction (id),
    actor              TEXT    NOT NULL,
    usage_record       INTEGER REFERENCES usage_record (id)
) STRICT;

CREATE INDEX movement_usage_record ON movement (usage_record) WHERE usage_record IS NOT NULL;
CREATE INDEX ledger_transaction_account ON ledger_transaction (account, id);
CREATE INDEX ledger_transaction_credit ON ledger_transaction (account, created_at) WHERE kind = 'credit';

-- Usage by key, UTC day (days since 1970), model and price: sums of usage_record by the day on which it ended.
CREATE TABLE usage_day (
    api_key    TEXT    NOT NULL REFERENCES api_key (id),
    day        INTEGER NOT NULL,
    model      TEXT    NOT NULL,
    price      INTEGER  NOT NULL REFERENCES price (id),
    account    TEXT    NOT NULL REFERENCES account (id),
    requests   INTEGER NOT NULL,
    prompt     INTEGER NOT NULL,
    cached     INTEGER NOT NULL,
    completion INTEGER NOT NULL,
    reasoning  INTEGER NOT NULL,
    cost       INTEGER NOT NULL,
    promo      INTEGER NOT NULL,
    PRIMARY KEY (api_key, day, model, price)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_day_account ON usage_day (account, day);
CREATE INDEX usage_record_ended ON usage_record (account, ended_at);

INSERT INTO usage_day (api_key, day, model, price, account, requests, prompt, cached, completion, reasoning, cost, promo)
SELECT api_key, ended_at / 86400000, model, price, account, COUNT(*), SUM(prompt), SUM(cached), SUM(completion),
    SUM(reasoning), SUM(cost), 0
FROM usage_record GROUP BY api_key, ended_at / 86400000, model, price, account;

-- Every administrative act, written in the transaction that did it. Never contains a secret.
CREATE TABLE audit (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    created_at INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    act        TEXT    NOT NULL,                            -- account.update, key.rotate, …
    account    TEXT    NOT NULL REFERENCES account (id),
    target     TEXT    NOT NULL,                            -- the id of an account, a key or a transaction
    old_state  TEXT,                                        -- JSON of the members that the act changed, before…
    new_state  TEXT                                         -- …and after
) STRICT;

CREATE INDEX audit_account ON audit (account, id);

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit records are append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit records are append-only'); END;
CREATE TRIGGER movement_no_update BEFORE UPDATE ON movement
BEGIN SELECT RAISE(ABORT, 'movements are append-only'); END;
CREATE TRIGGER movement_no_delete BEFORE DELETE ON movement
BEGIN SELECT RAISE(ABORT, 'movements are append-only'); END;
