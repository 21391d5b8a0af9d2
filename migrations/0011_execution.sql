-- Steps in batches with a canary, what stood before each of them, and the lock that is held until verification is over.

ALTER TABLE execution_steps
    ADD COLUMN batch  integer NOT NULL DEFAULT 0,
    ADD COLUMN before jsonb;

ALTER TABLE executions
    ADD COLUMN canary         jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN watching_since timestamptz,
    ADD COLUMN canary_verdict text NOT NULL DEFAULT '',
    ADD COLUMN lock_resource  text,
    ADD COLUMN lock_token     text,
    ADD COLUMN lock_fence     bigint;
CREATE INDEX executions_locks ON executions (id) WHERE lock_token IS NOT NULL;
