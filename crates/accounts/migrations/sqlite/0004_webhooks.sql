-- What others are told, in the transaction in which it happened, and who wants to know. What nobody wants to
-- know isn't written.

-- It had a row for each request, and nobody took it.
DROP TABLE outbox;

-- The events that each webhook of the config gets.
CREATE TABLE webhook (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,                                     -- balance.low, key.created, …
    PRIMARY KEY (name, kind)
) STRICT, WITHOUT ROWID;

-- An event for one webhook. Whoever delivers it deletes it.
CREATE TABLE delivery (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    webhook    TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    event      TEXT    NOT NULL,                            -- its id, the same for all who are told
    body       TEXT    NOT NULL,
    attempts   INTEGER NOT NULL,                            -- begun
    next_at    INTEGER NOT NULL,                            -- nobody tries before; the end of a claim, too
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX delivery_webhook ON delivery (webhook, id);

-- Beside the credit limit, where spending finds it.
ALTER TABLE balance ADD COLUMN low_balance   INTEGER;       -- warn when less than this is left
ALTER TABLE balance ADD COLUMN low_day       INTEGER;       -- the UTC day on which it was last told, days since 1970
ALTER TABLE balance ADD COLUMN exhausted_day INTEGER;       -- the same, of a request that it didn't cover
UPDATE balance SET low_balance = (SELECT low_balance FROM account WHERE account.id = balance.account);
ALTER TABLE account DROP COLUMN low_balance;
