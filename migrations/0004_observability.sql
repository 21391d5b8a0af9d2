-- What else is known of services beside their metrics: changes, log patterns, and what a source turned away.

CREATE TABLE changes (
    service  text NOT NULL,
    kind     text NOT NULL,
    revision text NOT NULL,
    at       timestamptz NOT NULL,
    title    text NOT NULL,
    author   text NOT NULL DEFAULT '',
    PRIMARY KEY (service, kind, revision)
);
CREATE INDEX changes_at ON changes (at);

CREATE TABLE log_patterns (
    service    text NOT NULL,
    template   text NOT NULL,
    kind       text NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at    timestamptz NOT NULL,
    count      integer NOT NULL,
    expected   double precision NOT NULL,
    sample     text NOT NULL,
    PRIMARY KEY (service, template, started_at)
);
CREATE INDEX log_patterns_seen ON log_patterns (service, seen_at);

ALTER TABLE source_health ADD COLUMN rejected jsonb NOT NULL DEFAULT '{}';

-- The change that an anomaly is put down to.
ALTER TABLE anomalies ADD COLUMN change jsonb;

-- Baselines know hours of the week now, and are one value a series; those of the first layout are learned anew.
TRUNCATE baselines;
ALTER TABLE baselines DROP COLUMN mean, DROP COLUMN deviation, DROP COLUMN weight, ADD COLUMN state bytea NOT NULL;
