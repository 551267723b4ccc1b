-- Accounts, keys, the ledger and usage. Money is nano-USD, time is milliseconds since 1970.
-- Column names and statements are the same on every database; only types and triggers differ.
-- Texts sort by their bytes (COLLATE "C"), as on SQLite.

CREATE TABLE account (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name        TEXT COLLATE "C" NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL
);

CREATE TABLE api_key (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,  -- the public part of the key
    account     TEXT COLLATE "C" NOT NULL REFERENCES account (id),
    name        TEXT COLLATE "C",
    secret_hash BYTEA   NOT NULL CHECK (length(secret_hash) = 32),
    models      TEXT COLLATE "C",  -- ids of models, one per line; NULL is every model
    created_at  BIGINT NOT NULL,
    expires_at  BIGINT,
    revoked_at  BIGINT
);

CREATE INDEX api_key_account ON api_key (account, created_at);

-- Sums of the entries of an account's books: posted is wallet + held, held is held.
CREATE TABLE balance (
    account      TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES account (id),
    posted       BIGINT NOT NULL DEFAULT 0,
    held         BIGINT NOT NULL DEFAULT 0 CHECK (held >= 0),
    credit_limit BIGINT NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    CHECK (posted + credit_limit - held >= 0)
);

-- A version of a model's price. Rows are never changed: a new price is a new row.
CREATE TABLE price (
    id          BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    model       TEXT COLLATE "C" NOT NULL,
    input       BIGINT NOT NULL CHECK (input >= 0),
    output      BIGINT NOT NULL CHECK (output >= 0),
    cached      BIGINT NOT NULL CHECK (cached >= 0),
    created_at  BIGINT NOT NULL,
    UNIQUE (model, input, output, cached)
);

CREATE TABLE hold (
    id            BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    request       TEXT COLLATE "C" NOT NULL,
    attempt       BIGINT NOT NULL,
    account       TEXT COLLATE "C" NOT NULL REFERENCES account (id),
    api_key       TEXT COLLATE "C" NOT NULL REFERENCES api_key (id),
    model         TEXT COLLATE "C" NOT NULL,
    price         BIGINT NOT NULL REFERENCES price (id),
    amount        BIGINT NOT NULL CHECK (amount >= 0),
    state         TEXT COLLATE "C" NOT NULL,  -- open, then settled or released
    node          TEXT COLLATE "C" NOT NULL,  -- the process that made the hold
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    -- Tokens delivered at the last checkpoint.
    checkpoint_at BIGINT,
    prompt        BIGINT NOT NULL DEFAULT 0,
    cached        BIGINT NOT NULL DEFAULT 0,
    completion    BIGINT NOT NULL DEFAULT 0,
    reasoning     BIGINT NOT NULL DEFAULT 0,
    UNIQUE (request, attempt)
);

CREATE INDEX hold_open ON hold (account) WHERE state = 'open';

CREATE TABLE ledger_transaction (
    id              BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    idempotency_key TEXT COLLATE "C" NOT NULL UNIQUE,
    kind            TEXT COLLATE "C" NOT NULL,
    account         TEXT COLLATE "C" NOT NULL REFERENCES account (id),
    hold            BIGINT,
    reason          TEXT COLLATE "C",
    posted          BIGINT NOT NULL,  -- the account's posted balance right after
    created_at      BIGINT NOT NULL
);

CREATE TABLE entry (
    ledger_transaction BIGINT NOT NULL REFERENCES ledger_transaction (id),
    book               TEXT COLLATE "C" NOT NULL,  -- wallet:…, held:…, revenue, funding, adjustment
    amount             BIGINT NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (ledger_transaction, book)
);

CREATE TABLE usage_record (
    id                 BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    ledger_transaction BIGINT NOT NULL UNIQUE REFERENCES ledger_transaction (id),
    request            TEXT COLLATE "C" NOT NULL,
    attempt            BIGINT NOT NULL,
    account            TEXT COLLATE "C" NOT NULL REFERENCES account (id),
    api_key            TEXT COLLATE "C" NOT NULL REFERENCES api_key (id),
    model              TEXT COLLATE "C" NOT NULL,
    price              BIGINT NOT NULL REFERENCES price (id),
    prompt             BIGINT NOT NULL,
    cached             BIGINT NOT NULL,
    completion         BIGINT NOT NULL,
    reasoning          BIGINT NOT NULL,
    held               BIGINT NOT NULL,  -- the amount of the hold: the cost is never more
    cost               BIGINT NOT NULL CHECK (cost >= 0 AND cost <= held),
    outcome            TEXT COLLATE "C" NOT NULL,
    source             TEXT COLLATE "C" NOT NULL,
    started_at         BIGINT NOT NULL,
    ended_at           BIGINT NOT NULL,
    UNIQUE (request, attempt)
);

CREATE INDEX usage_record_account ON usage_record (account, id);

-- Events to deliver, in order. A delivered row is deleted. (0004 drops this table.)
CREATE TABLE outbox (
    id          BIGINT NOT NULL PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    topic       TEXT COLLATE "C" NOT NULL,
    subject     BIGINT NOT NULL,
    created_at  BIGINT NOT NULL
);

-- Append-only: a wrong entry is corrected by another one.
CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% are append-only', TG_ARGV[0];
END $$;
CREATE TRIGGER entry_no_update BEFORE UPDATE ON entry
    FOR EACH ROW EXECUTE FUNCTION append_only('entries');
CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry
    FOR EACH ROW EXECUTE FUNCTION append_only('entries');
CREATE TRIGGER entry_no_truncate BEFORE TRUNCATE ON entry
    FOR EACH STATEMENT EXECUTE FUNCTION append_only('entries');
CREATE TRIGGER ledger_transaction_no_update BEFORE UPDATE ON ledger_transaction
    FOR EACH ROW EXECUTE FUNCTION append_only('transactions');
CREATE TRIGGER ledger_transaction_no_delete BEFORE DELETE ON ledger_transaction
    FOR EACH ROW EXECUTE FUNCTION append_only('transactions');
CREATE TRIGGER ledger_transaction_no_truncate BEFORE TRUNCATE ON ledger_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION append_only('transactions');
CREATE TRIGGER price_no_update BEFORE UPDATE ON price
    FOR EACH ROW EXECUTE FUNCTION append_only('prices');
