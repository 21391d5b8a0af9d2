"""SQL by which a trial sets its scene."""

from __future__ import annotations

from tests.crash.recorder import SERVICE_UID

NO_ROOM = """CREATE TABLE no_room (at timestamptz);
    CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF EXISTS (SELECT FROM no_room) THEN
            RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER a_no_room BEFORE INSERT ON trace FOR EACH ROW EXECUTE FUNCTION no_room()"""
"""While that table has a row, the trail takes no entry; it is filled and emptied under the replicas' feet."""
UNDIAGNOSED = """DELETE FROM plans; DELETE FROM evidence;
    UPDATE incidents SET state = 'open', diagnosis = NULL, passages = '[]'"""
MILD = """UPDATE incidents SET severity = 'SEV3',
    severity_detail = jsonb_set(severity_detail, '{severity}', '"SEV3"')"""
"""At SEV3 one person is enough."""
SPENT = f"""INSERT INTO incidents (fingerprint, state, service, environment, family, severity, title, closed_at)
    SELECT 'earlier-' || n, 'closed', 'checkout', 'demo', 'latency', 'SEV3', 'earlier', clock_timestamp()
    FROM generate_series(1, 2) n;
    INSERT INTO plans (incident_id, revision, action, target, generation, replicas_before, hash, state,
                       approvals_needed, expected_effect, expires_at)
    SELECT i.id, 1, p.action, p.target, '1', 3, 'earlier', 'approved', 1, '', clock_timestamp()
    FROM incidents i, plans p WHERE i.title = 'earlier';
    INSERT INTO executions (plan_id, incident_id, kind, state, target, target_uid, created_at, started_at, applied_at)
    SELECT p.id, p.incident_id, 'apply', 'verified', p.target, '{SERVICE_UID}', clock_timestamp() - interval '20 min',
           clock_timestamp() - interval '20 min', clock_timestamp() - interval '20 min'
    FROM plans p WHERE p.hash = 'earlier';
    INSERT INTO execution_steps (execution_id, number, operation, state, dispatched_at, applied_at)
    SELECT e.id, 1, '{{}}', 'applied', e.created_at, e.created_at FROM executions e, plans p
    WHERE p.id = e.plan_id AND p.hash = 'earlier'"""
"""Two incidents of the last hour that were acted on."""
