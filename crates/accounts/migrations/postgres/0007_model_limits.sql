-- Limits of an account for single models, as JSON: {"org/model": {"requests_per_minute": 5, …}, …}. They are read with
-- the account, for each request, and never searched by model.
ALTER TABLE account ADD COLUMN model_limits TEXT;
