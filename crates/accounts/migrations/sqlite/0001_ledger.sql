-- Accounts, keys, the ledger and usage. Money is nano-USD, time is milliseconds since 1970.
-- Column names and statements are the same on every database; only types and triggers differ.

CREATE TABLE account (
    id          TEXT    NOT NULL PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE api_key (
    id          TEXT    NOT NULL PRIMARY KEY,               -- the public part of the key
    account     TEXT    NOT NULL REFERENCES account (id),
    name        TEXT,
    secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    models      TEXT,                                       -- ids of models, one per line; NULL is every model
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT;

CREATE INDEX api_key_account ON api_key (account, created_at);

-- Sums of the entries of an account's books: posted is wallet + held, held is held.
CREATE TABLE balance (
    account      TEXT    NOT NULL PRIMARY KEY REFERENCES account (id),
    posted       INTEGER NOT NULL DEFAULT 0,
    held         INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
    credit_limit INTEGER NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    CHECK (posted + credit_limit - held >= 0)
) STRICT;

-- A version of a model's price. Rows are never changed: a new price is a new row.
CREATE TABLE price (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    model       TEXT    NOT NULL,
    input       INTEGER NOT NULL CHECK (input >= 0),
    output      INTEGER NOT NULL CHECK (output >= 0),
    cached      INTEGER NOT NULL CHECK (cached >= 0),
    created_at  INTEGER NOT NULL,
    UNIQUE (model, input, output, cached)
) STRICT;

CREATE TABLE hold (
    id            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    request       TEXT    NOT NULL,
    attempt       INTEGER NOT NULL,
    account       TEXT    NOT NULL REFERENCES account (id),
    api_key       TEXT    NOT NULL REFERENCES api_key (id),
    model         TEXT    NOT NULL,
    price         INTEGER NOT NULL REFERENCES price (id),
    amount        INTEGER NOT NULL CHECK (amount >= 0),
    state         TEXT    NOT NULL,                         -- open, then settled or released
    node          TEXT    NOT NULL,                         -- the process that made the hold
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    -- Tokens delivered at the last checkpoint.
    checkpoint_at INTEGER,
    prompt        INTEGER NOT NULL DEFAULT 0,
    cached        INTEGER NOT NULL DEFAULT 0,
    completion    INTEGER NOT NULL DEFAULT 0,
    reasoning     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (request, attempt)
) STRICT;

CREATE INDEX hold_open ON hold (account) WHERE state = 'open';

CREATE TABLE ledger_transaction (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    idempotency_key TEXT    NOT NULL UNIQUE,
    kind            TEXT    NOT NULL,
    account         TEXT    NOT NULL REFERENCES account (id),
    hold            INTEGER,
    reason          TEXT,
    posted          INTEGER NOT NULL,                       -- the account's posted balance right after
    created_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE entry (
    ledger_transaction INTEGER NOT NULL REFERENCES ledger_transaction (id),
    book               TEXT    NOT NULL,                    -- wallet:…, held:…, revenue, funding, adjustment
    amount             INTEGER NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (ledger_transaction, book)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_record (
    id                 INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    ledger_transaction INTEGER NOT NULL UNIQUE REFERENCES ledger_transaction (id),
    request            TEXT    NOT NULL,
    attempt            INTEGER NOT NULL,
    account            TEXT    NOT NULL REFERENCES account (id),
    api_key            TEXT    NOT NULL REFERENCES api_key (id),
    model              TEXT    NOT NULL,
    price              INTEGER NOT NULL REFERENCES price (id),
    prompt             INTEGER NOT NULL,
    cached             INTEGER NOT NULL,
    completion         INTEGER NOT NULL,
    reasoning          INTEGER NOT NULL,
    held               INTEGER NOT NULL,                    -- the amount of the hold: the cost is never more
    cost               INTEGER NOT NULL CHECK (cost >= 0 AND cost <= held),
    outcome            TEXT    NOT NULL,
    source             TEXT    NOT NULL,
    started_at         INTEGER NOT NULL,
    ended_at           INTEGER NOT NULL,
    UNIQUE (request, attempt)
) STRICT;

CREATE INDEX usage_record_account ON usage_record (account, id);

-- Events to deliver, in order. A delivered row is deleted. (0004 drops this table.)
CREATE TABLE outbox (
    id          INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    topic       TEXT    NOT NULL,
    subject     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

-- Append-only: a wrong entry is corrected by another one.
CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry
BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry
BEGIN SELECT RAISE(ABORT, 'entries are append-only'); END;
CREATE TRIGGER ledger_transaction_no_update BEFORE UPDATE ON ledger_transaction
BEGIN SELECT RAISE(ABORT, 'transactions are append-only'); END;
CREATE TRIGGER ledger_transaction_no_delete BEFORE DELETE ON ledger_transaction
BEGIN SELECT RAISE(ABORT, 'transactions are append-only'); END;
CREATE TRIGGER price_no_update BEFORE UPDATE ON price
BEGIN SELECT RAISE(ABORT, 'prices are append-only'); END;
