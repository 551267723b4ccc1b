-- Old usage records are deleted where the config says so. What was deleted is a part of its day: with it the day and
-- the revenue of the ledger still add up.
ALTER TABLE usage_day ADD COLUMN pruned_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_cost     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_promo    INTEGER NOT NULL DEFAULT 0;
