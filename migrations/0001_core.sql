-- Telemetry as read, incidents and their parts, plans, decisions, executions, the trail and the outbox.

CREATE TABLE samples (
    service  text NOT NULL,
    signal   text NOT NULL,
    instance text NOT NULL DEFAULT '',
    at       timestamptz NOT NULL,
    value    double precision NOT NULL,
    PRIMARY KEY (service, signal, instance, at)
);
CREATE INDEX samples_at ON samples (at);

CREATE TABLE baselines (
    service   text NOT NULL,
    signal    text NOT NULL,
    instance  text NOT NULL DEFAULT '',
    mean      double precision[] NOT NULL,
    deviation double precision[] NOT NULL,
    weight    double precision[] NOT NULL,
    generated_samples bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (service, signal, instance)
);

CREATE TABLE edges (
    caller       text NOT NULL,
    callee       text NOT NULL,
    calls_per_s  double precision NOT NULL,
    last_seen_at timestamptz NOT NULL,
    PRIMARY KEY (caller, callee)
);

CREATE TABLE source_health (
    source   text PRIMARY KEY,
    failures text[] NOT NULL,
    read_at  timestamptz NOT NULL
);

CREATE TABLE ticks (
    job  text NOT NULL,
    slot bigint NOT NULL,
    at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (job, slot)
);

CREATE TABLE seen_requests (
    key text PRIMARY KEY,
    at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE incidents (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version     integer NOT NULL DEFAULT 1,
    fingerprint text NOT NULL,
    state       text NOT NULL DEFAULT 'open',
    service     text NOT NULL,
    environment text NOT NULL,
    family      text NOT NULL,
    severity    text NOT NULL,
    severity_detail jsonb,
    title       text NOT NULL,
    callers     text[] NOT NULL DEFAULT '{}',
    diagnosis   jsonb,
    passages    jsonb NOT NULL DEFAULT '[]',
    verification jsonb,
    owner       text,
    muted_until timestamptz,
    outcome     text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    state_since timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at   timestamptz,
    generated_baseline boolean NOT NULL DEFAULT false,
    card_channel text,
    card_ts      text,
    card_updated_at timestamptz,
    leased_by    text,
    lease_until  timestamptz
);
-- The latch: one open incident per cause.
CREATE UNIQUE INDEX incidents_open_fingerprint ON incidents (fingerprint)
    WHERE state NOT IN ('resolved', 'self_recovered', 'closed');
CREATE INDEX incidents_work ON incidents (state, severity, id)
    WHERE state NOT IN ('resolved', 'self_recovered', 'closed');

CREATE INDEX incidents_card ON incidents (card_channel, card_ts);

CREATE TABLE anomalies (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id bigint NOT NULL REFERENCES incidents (id),
    kind        text NOT NULL,
    service     text NOT NULL,
    signal      text NOT NULL,
    instance    text NOT NULL DEFAULT '',
    started_at  timestamptz NOT NULL,
    seen_at     timestamptz NOT NULL,
    cleared_at  timestamptz,
    value       double precision NOT NULL,
    peak        double precision NOT NULL,
    expected    double precision NOT NULL,
    sigma       double precision NOT NULL,
    threshold   double precision NOT NULL,
    breach_above boolean NOT NULL,
    UNIQUE (incident_id, service, signal, instance)
);

CREATE TABLE evidence (
    incident_id bigint NOT NULL REFERENCES incidents (id),
    id          text NOT NULL,
    kind        text NOT NULL,
    statement   text NOT NULL,
    query       text NOT NULL,
    subject     text NOT NULL,
    window_from timestamptz NOT NULL,
    window_to   timestamptz NOT NULL,
    PRIMARY KEY (incident_id, id)
);

CREATE TABLE plans (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id bigint NOT NULL REFERENCES incidents (id),
    revision    integer NOT NULL,
    action      jsonb NOT NULL,
    target      jsonb,
    generation  text NOT NULL,
    replicas_before integer NOT NULL,
    hash        text NOT NULL,
    state       text NOT NULL DEFAULT 'proposed',
    approvals_needed integer NOT NULL CHECK (approvals_needed >= 1),
    expected_effect text NOT NULL,
    guardrails  jsonb NOT NULL DEFAULT '[]',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz NOT NULL,
    UNIQUE (incident_id, revision)
);
CREATE UNIQUE INDEX plans_one_open ON plans (incident_id) WHERE state = 'proposed';

CREATE TABLE approvals (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id   bigint NOT NULL REFERENCES plans (id),
    plan_hash text NOT NULL,
    user_id   text NOT NULL,
    decision  text NOT NULL CHECK (decision IN ('approve', 'reject')),
    reason    text NOT NULL DEFAULT '',
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (plan_id, user_id)
);

-- Fences grow over all executions, so that a target that remembers the highest one can refuse a late call.
CREATE SEQUENCE fences;

CREATE TABLE executions (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_id     bigint NOT NULL REFERENCES plans (id),
    incident_id bigint NOT NULL REFERENCES incidents (id),
    kind        text NOT NULL CHECK (kind IN ('apply', 'rollback')),
    state       text NOT NULL DEFAULT 'ready',
    fence       bigint NOT NULL DEFAULT 0,
    target      jsonb NOT NULL,
    target_uid  text NOT NULL,
    leased_by   text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_before  timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at  timestamptz,
    waiting_since timestamptz,
    applied_at  timestamptz,
    detail      text NOT NULL DEFAULT '',
    UNIQUE (plan_id, kind)
);
-- Never two open executions on one target.
CREATE UNIQUE INDEX executions_open_target ON executions (target_uid)
    WHERE state IN ('ready', 'claimed', 'dispatched', 'unknown');

CREATE TABLE execution_steps (
    execution_id  bigint NOT NULL REFERENCES executions (id),
    number        integer NOT NULL,
    operation     jsonb NOT NULL,
    state         text NOT NULL DEFAULT 'pending',
    generation    text NOT NULL DEFAULT '',
    fence         bigint NOT NULL DEFAULT 0,
    dispatched_at timestamptz,
    applied_at    timestamptz,
    detail        text NOT NULL DEFAULT '',
    PRIMARY KEY (execution_id, number)
);

CREATE TABLE kill_switches (
    scope      text PRIMARY KEY,
    engaged    boolean NOT NULL,
    reason     text NOT NULL,
    changed_by text NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    resume_asked_by text,
    resume_asked_at timestamptz
);

CREATE TABLE phases (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    phase  text NOT NULL,
    reason text NOT NULL,
    set_by text NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident_id bigint REFERENCES incidents (id),
    payload     jsonb NOT NULL,
    kind        text NOT NULL GENERATED ALWAYS AS (payload ->> 'kind') STORED,
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    attempts    integer NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    leased_by   text,
    lease_until timestamptz,
    attempted_at timestamptz,
    done_at     timestamptz,
    error       text NOT NULL DEFAULT '',
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX outbox_pending ON outbox (incident_id, id) WHERE state = 'pending';
-- A card is always drawn whole from current state, so one waiting draw is enough.
CREATE UNIQUE INDEX outbox_one_card ON outbox (incident_id) WHERE state = 'pending' AND kind = 'card' AND attempts = 0;

-- The trail: append-only, numbered and timed by the database, chained by hash per incident (0: the bot as a whole).
CREATE TABLE trace_heads (
    incident_id bigint PRIMARY KEY,
    seq         bigint NOT NULL,
    hash        text NOT NULL
);

CREATE TABLE trace (
    incident_id bigint NOT NULL,
    seq         bigint NOT NULL,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    summary     text NOT NULL,
    data        jsonb NOT NULL,
    previous    text NOT NULL,
    hash        text NOT NULL,
    PRIMARY KEY (incident_id, seq)
);

CREATE FUNCTION trace_hash(previous text, incident_id bigint, seq bigint, at timestamptz, kind text, summary text, data jsonb)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(sha256(convert_to(concat_ws('|', previous, incident_id, seq,
        (extract(epoch FROM at) * 1000000)::bigint, kind, summary, data::text), 'UTF8')), 'hex')
$$;

CREATE FUNCTION trace_chain() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    head trace_heads%ROWTYPE;
BEGIN
    INSERT INTO trace_heads (incident_id, seq, hash) VALUES (NEW.incident_id, 0, '')
        ON CONFLICT (incident_id) DO NOTHING;
    SELECT * INTO head FROM trace_heads WHERE incident_id = NEW.incident_id FOR UPDATE;
    NEW.seq := head.seq + 1;
    NEW.at := clock_timestamp();
    NEW.previous := head.hash;
    NEW.hash := trace_hash(NEW.previous, NEW.incident_id, NEW.seq, NEW.at, NEW.kind, NEW.summary, NEW.data);
    UPDATE trace_heads SET seq = NEW.seq, hash = NEW.hash WHERE incident_id = NEW.incident_id;
    RETURN NEW;
END
$$;
CREATE TRIGGER trace_chain BEFORE INSERT ON trace FOR EACH ROW EXECUTE FUNCTION trace_chain();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER trace_append_only BEFORE UPDATE OR DELETE ON trace FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER trace_no_truncate BEFORE TRUNCATE ON trace FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER approvals_append_only BEFORE UPDATE OR DELETE ON approvals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER approvals_no_truncate BEFORE TRUNCATE ON approvals FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
