-- What a plan risks, and the other ways that were weighed; which kinds of action have not helped an incident.
ALTER TABLE plans
    ADD COLUMN risk text NOT NULL DEFAULT '' CHECK (risk IN ('', 'low', 'medium', 'high')),
    ADD COLUMN alternatives jsonb NOT NULL DEFAULT '[]',
    ADD COLUMN reconsidered_at timestamptz;
