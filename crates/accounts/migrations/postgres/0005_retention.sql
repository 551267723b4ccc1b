-- Old usage records are deleted if the config says so. Each day keeps the sums of its deleted records, so that it can
-- still be compared to the remaining records and to the ledger's revenue.
ALTER TABLE usage_day ADD COLUMN pruned_requests BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_cost     BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage_day ADD COLUMN pruned_promo    BIGINT NOT NULL DEFAULT 0;
