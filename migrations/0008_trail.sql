-- The trail is not the bot's to change: rows whose fields cannot be shifted, heads and decisions under the same guard,
-- and the rights of a role that owns nothing. migrations/README.md says which role is whose.

-- Version 2: each field with its length before it. The rows that are there stay as they were hashed (version 1).
ALTER TABLE trace ADD COLUMN version smallint NOT NULL DEFAULT 1;
ALTER TABLE trace_heads ADD COLUMN at timestamptz;
UPDATE trace_heads SET at = (SELECT max(trace.at) FROM trace WHERE trace.incident_id = trace_heads.incident_id);

CREATE FUNCTION trace_hash_2(previous text, incident_id bigint, seq bigint, at timestamptz, kind text, summary text, data jsonb)
RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT encode(sha256(convert_to(string_agg(
        octet_length(convert_to(field, 'UTF8')) || ':' || field || ',', '' ORDER BY number), 'UTF8')), 'hex')
    FROM unnest(ARRAY['2', previous, incident_id::text, seq::text,
        (extract(epoch FROM at) * 1000000)::bigint::text, kind, summary, data::text]) WITH ORDINALITY AS f (field, number)
$$;

-- Runs as the owner: who may add a row may not write heads. A clock that is set back stands still here: time never
-- goes back within a chain, so that a row that does was not written by this.
CREATE OR REPLACE FUNCTION trace_chain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    head trace_heads%ROWTYPE;
BEGIN
    INSERT INTO trace_heads (incident_id, seq, hash) VALUES (NEW.incident_id, 0, '')
        ON CONFLICT (incident_id) DO NOTHING;
    SELECT * INTO head FROM trace_heads WHERE incident_id = NEW.incident_id FOR UPDATE;
    NEW.version := 2;
    NEW.seq := head.seq + 1;
    NEW.at := greatest(clock_timestamp(), head.at);
    NEW.previous := head.hash;
    NEW.hash := trace_hash_2(NEW.previous, NEW.incident_id, NEW.seq, NEW.at, NEW.kind, NEW.summary, NEW.data);
    UPDATE trace_heads SET seq = NEW.seq, hash = NEW.hash, at = NEW.at WHERE incident_id = NEW.incident_id;
    RETURN NEW;
END
$$;

-- Heads are written by trace_chain alone, which is a trigger itself.
CREATE FUNCTION refuse_head() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 OR TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'trace_heads is written by the trail alone' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER trace_heads_guard BEFORE INSERT OR UPDATE OR DELETE ON trace_heads
    FOR EACH ROW EXECUTE FUNCTION refuse_head();
CREATE TRIGGER trace_heads_no_truncate BEFORE TRUNCATE ON trace_heads FOR EACH STATEMENT EXECUTE FUNCTION refuse_head();

-- A decision is dated by the database, and stands in the trail word for word (its reason by hash: it may hold a secret).
CREATE FUNCTION approval_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.at := clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TRIGGER approvals_time BEFORE INSERT ON approvals FOR EACH ROW EXECUTE FUNCTION approval_time();

CREATE FUNCTION approval_entry(approval approvals) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('approval', approval.id, 'plan', approval.plan_id, 'hash', approval.plan_hash,
        'user', approval.user_id, 'decision', approval.decision,
        'reason_sha256', encode(sha256(convert_to(approval.reason, 'UTF8')), 'hex'),
        'at_us', (extract(epoch FROM approval.at) * 1000000)::bigint)
$$;

CREATE FUNCTION approval_to_trail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO trace (incident_id, kind, summary, data)
    SELECT incident_id, 'approval', format('%s of plan %s by %s', NEW.decision, NEW.plan_id, NEW.user_id),
        approval_entry(NEW)
    FROM plans WHERE id = NEW.plan_id;
    RETURN NULL;
END
$$;

-- The decisions of before, as they stand now.
INSERT INTO trace (incident_id, kind, summary, data)
SELECT plans.incident_id, 'approval', format('%s of plan %s by %s, taken over', decision, plan_id, user_id),
    approval_entry(approvals)
FROM approvals JOIN plans ON plans.id = approvals.plan_id ORDER BY approvals.id;

-- At the end of the transaction: the head of the chain is the last row that is locked.
CREATE CONSTRAINT TRIGGER approvals_to_trail AFTER INSERT ON approvals DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION approval_to_trail();

-- The index of another size than the shipped one, for who may not create any.
CREATE FUNCTION index_piece_vectors(size integer) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    home name := (SELECT nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector');
BEGIN
    IF size NOT BETWEEN 1 AND 4000 THEN
        RAISE EXCEPTION 'no index of % dimensions: 1 to 4000', size;
    END IF;
    EXECUTE format('CREATE INDEX IF NOT EXISTS piece_vectors_hnsw_%1$s ON piece_vectors '
        'USING hnsw ((embedding::%2$I.halfvec(%1$s)) %2$I.halfvec_cosine_ops) '
        'WITH (ef_construction = 128) WHERE dimensions = %1$s', size, home);
END
$$;

-- What the bot's role may: add to what is append-only, look at heads and history, and use the rest. Safe to repeat.
CREATE FUNCTION give_rights(app name) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one record;
    kind text;
BEGIN
    IF NOT has_schema_privilege(app, current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), app);
    END IF;
    FOR one IN
        SELECT c.oid::regclass AS place, c.relkind, CASE
                WHEN c.relkind = 'S' THEN ARRAY['USAGE']
                WHEN c.relname IN ('trace_heads', 'schema_migrations') THEN ARRAY['SELECT']
                WHEN EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'refuse_change'::regproc)
                THEN ARRAY['INSERT', 'SELECT']
                ELSE ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE'] END AS wanted,
            ARRAY(SELECT a.privilege_type FROM aclexplode(c.relacl) a
                WHERE a.grantee = (SELECT oid FROM pg_roles WHERE rolname = app) ORDER BY 1) AS given
        FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'S')
            AND pg_has_role(c.relowner, 'USAGE')
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    LOOP
        CONTINUE WHEN one.given = one.wanted;
        kind := CASE one.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END;
        EXECUTE format('REVOKE ALL ON %s %s FROM %I', kind, one.place, app);
        EXECUTE format('GRANT %s ON %s %s TO %I', array_to_string(one.wanted, ', '), kind, one.place, app);
    END LOOP;
END
$$;

-- What runs as the owner looks names up where the owner put them, whatever the caller's session says.
DO $$
DECLARE
    one regprocedure;
BEGIN
    FOREACH one IN ARRAY ARRAY['trace_chain()', 'approval_to_trail()', 'approval_time()', 'refuse_head()',
        'index_piece_vectors(integer)']::regprocedure[]
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp', one, current_schema());
        -- Or who may make a table of his own could put the trigger there, and move heads by it. A trigger that stands
        -- fires without this right.
        IF one <> 'index_piece_vectors(integer)'::regprocedure THEN
            EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one);
        END IF;
    END LOOP;
END
$$;
