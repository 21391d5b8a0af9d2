-- What comes in from outside: events processed once by each consumer, and alerts of other systems.

-- Written in the transaction of the event's effect: an event that is delivered again finds itself here.
CREATE TABLE processed_events (
    consumer text NOT NULL,
    event    text NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (consumer, event)
);
CREATE INDEX processed_events_at ON processed_events (at);

CREATE TABLE alerts (
    fingerprint text NOT NULL,
    started_at  timestamptz NOT NULL,
    service     text NOT NULL,
    name        text NOT NULL,
    summary     text NOT NULL,
    ended_at    timestamptz,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (fingerprint, started_at)
);
CREATE INDEX alerts_service ON alerts (service, seen_at);
