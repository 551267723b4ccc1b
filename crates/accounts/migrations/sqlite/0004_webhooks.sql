-- Webhooks and their events. An event is written in the transaction in which it happened, if a webhook subscribes to
-- its kind.

-- It had a row for each request, and nothing read it.
DROP TABLE outbox;

-- The kinds of events that each webhook of the config subscribes to.
CREATE TABLE webhook (
    name TEXT NOT NULL,
    kind TEXT NOT NULL,                                     -- balance.low, key.created, …
    PRIMARY KEY (name, kind)
) STRICT, WITHOUT ROWID;

-- An event for one webhook, deleted when it is delivered or given up.
CREATE TABLE delivery (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    webhook    TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    event      TEXT    NOT NULL,                            -- the event's id, the same for all webhooks
    body       TEXT    NOT NULL,
    attempts   INTEGER NOT NULL,                            -- attempts begun so far
    next_at    INTEGER NOT NULL,                            -- no attempt before; a claim moves it to its own end
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX delivery_webhook ON delivery (webhook, id);

-- Beside the credit limit, so that a settlement reads it in the same statement.
ALTER TABLE balance ADD COLUMN low_balance   INTEGER;       -- the threshold of balance.low
ALTER TABLE balance ADD COLUMN low_day       INTEGER;       -- the UTC day of the last balance.low, days since 1970
ALTER TABLE balance ADD COLUMN exhausted_day INTEGER;       -- the UTC day of the last balance.exhausted
UPDATE balance SET low_balance = (SELECT low_balance FROM account WHERE account.id = balance.account);
ALTER TABLE account DROP COLUMN low_balance;
