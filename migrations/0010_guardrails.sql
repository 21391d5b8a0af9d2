-- What the guardrails judge by: how many replicas a target had, for platforms that keep no such history.

CREATE TABLE target_replicas (
    uid      text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    replicas integer NOT NULL CHECK (replicas >= 0),
    PRIMARY KEY (uid, at)
);
CREATE INDEX target_replicas_at ON target_replicas (at);

-- What was done to a target, and what was done of late.
CREATE INDEX executions_target ON executions (target_uid, created_at);
CREATE INDEX executions_recent ON executions (created_at);
