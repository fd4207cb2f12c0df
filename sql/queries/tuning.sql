-- `pgembed tune`. Optuna makes its own tables, with an alembic_version among them, in a schema of their own.

-- name: tuning_schema_missing
SELECT true WHERE to_regnamespace('pgembed_tune') IS NULL;

-- name: tuning_schema
CREATE SCHEMA IF NOT EXISTS pgembed_tune;

-- name: tuning_search_path
-- Nothing else: Optuna's alembic_version must be neither pgembed's nor the user's.
SET search_path = pgembed_tune;

-- name: tuning_lock
-- Whoever asks for the next trial, or makes the tables: one at a time.
SELECT pg_advisory_lock(hashtext('pgembed.tune'), 0);

-- name: tuning_unlock
SELECT pg_advisory_unlock(hashtext('pgembed.tune'), 0);

-- name: tuning_try_trial_lock
-- A trial at work is held by its process; the lock of one that died is gone with its connection.
SELECT pg_try_advisory_lock(hashtext('pgembed.tune/' || %(study)s), %(number)s);

-- name: tuning_trial_unlock
SELECT pg_advisory_unlock(hashtext('pgembed.tune/' || %(study)s), %(number)s);
