-- A diagnosis that shows its proof: facts with what code judged of them and the values as read; answers kept for reuse.

ALTER TABLE evidence
    ADD COLUMN service  text NOT NULL DEFAULT '',
    ADD COLUMN sign     text NOT NULL DEFAULT 'stated',
    ADD COLUMN signal   text,
    ADD COLUMN began    timestamptz,
    ADD COLUMN value    double precision,
    ADD COLUMN snapshot jsonb NOT NULL DEFAULT '{}';

-- Claims cite with a quote now; those of before have none.
UPDATE incidents SET diagnosis = jsonb_set(diagnosis, '{claims}', coalesce((
    SELECT jsonb_agg(jsonb_build_object('text', claim ->> 'text', 'evidence', coalesce((
        SELECT jsonb_agg(jsonb_build_object('id', cited, 'quote', ''))
        FROM jsonb_array_elements_text(claim -> 'evidence') AS cited), '[]')))
    FROM jsonb_array_elements(diagnosis -> 'claims') AS claim), '[]'))
WHERE diagnosis IS NOT NULL;

-- One answer of a model per cause and what it rested on; outlived after hours, dropped when it proves wrong.
CREATE TABLE diagnosis_cache (
    service     text NOT NULL,
    kind        text NOT NULL,
    signal      text NOT NULL,
    rests_on    text NOT NULL,
    incident_id bigint NOT NULL REFERENCES incidents (id),
    hypothesis  jsonb NOT NULL,
    source      text NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (service, kind, signal)
);

-- A person may ask for another plan, and may then not approve it.
ALTER TABLE plans ADD COLUMN requested_by text NOT NULL DEFAULT '';

-- What models have used of late.
CREATE INDEX trace_models ON trace (at) WHERE kind IN ('prompt', 'review', 'question');
