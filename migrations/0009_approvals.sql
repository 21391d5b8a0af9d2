-- Decisions that hold up: buttons carry a random token, what was seen of the target stands with the plan, and people are
-- reminded once and paged under one key.

ALTER TABLE plans
    ADD COLUMN token text NOT NULL DEFAULT replace(gen_random_uuid()::text, '-', ''),
    ADD COLUMN target_revision text NOT NULL DEFAULT '';
CREATE UNIQUE INDEX plans_token ON plans (token);

-- What people were told of a plan that waits; a row is written once, whichever replica comes first.
CREATE TABLE reminders (
    plan_id bigint NOT NULL REFERENCES plans (id),
    what    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (plan_id, what)
);

-- How far the page of an incident has come; the key is the pager's name for it.
CREATE TABLE pages (
    incident_id bigint PRIMARY KEY REFERENCES incidents (id),
    dedup_key   text NOT NULL DEFAULT 'sre-bot-' || gen_random_uuid()::text,
    state       text NOT NULL CHECK (state IN ('trigger', 'acknowledge', 'resolve')),
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Cards of before bear other values on their buttons: those that wait are drawn anew.
INSERT INTO outbox (incident_id, payload)
SELECT incident_id, '{"kind": "card", "schema_version": 1}' FROM plans WHERE state = 'proposed'
ON CONFLICT DO NOTHING;
