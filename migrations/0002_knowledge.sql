-- Runbooks and post-mortems as ingested: documents by content hash, and their chunks.

CREATE TABLE documents (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection    text NOT NULL,
    path          text NOT NULL,
    title         text NOT NULL,
    services      text[] NOT NULL DEFAULT '{}',
    category      text NOT NULL DEFAULT '',
    platform      text NOT NULL DEFAULT '',
    owner         text NOT NULL DEFAULT '',
    last_verified date,
    content_hash  text NOT NULL,
    ingested_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (collection, path)
);

-- A chunk is its text: an edited document keeps the rows, and the vectors, of what did not change.
CREATE TABLE chunks (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id  bigint NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    number       integer NOT NULL,
    heading      text NOT NULL,
    text         text NOT NULL,
    content_hash text NOT NULL,
    UNIQUE (document_id, content_hash)
);
