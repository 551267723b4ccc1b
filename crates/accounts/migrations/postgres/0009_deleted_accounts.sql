-- When an account was deleted. Its row and its records stay, renamed to a name that no account can be given, so that
-- its old name is free.
ALTER TABLE account ADD COLUMN deleted_at BIGINT;
