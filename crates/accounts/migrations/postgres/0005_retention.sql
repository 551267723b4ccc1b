-- Old usage records are deleted where the config says so. What was deleted is a part of its day: with it the day and
-- the revenue of the ledger still add up.
ALTER TABLE usage_day ADD COLUMN pruned_requests BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_cost     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_promo    BIGINT NOT NULL DEFAULT 0;
