-- What a document says of itself beyond its services: whose runbook it is, of what kind, from where, how far to trust it.
ALTER TABLE documents
    ADD COLUMN alerts text[] NOT NULL DEFAULT '{}',
    ADD COLUMN kind   text NOT NULL DEFAULT 'runbook',
    ADD COLUMN trust  real,
    ADD COLUMN source text NOT NULL DEFAULT '';

-- What is embedded: the opening of a document (0), each of its sections (1), each pair of sentences (2).
CREATE TABLE pieces (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id  bigint NOT NULL REFERENCES documents (id) ON DELETE CASCADE,
    chunk_id     bigint NOT NULL REFERENCES chunks (id) ON DELETE CASCADE,
    kind         smallint NOT NULL CHECK (kind BETWEEN 0 AND 2),
    text         text NOT NULL,
    content_hash text NOT NULL,
    UNIQUE (document_id, content_hash)
);
CREATE INDEX pieces_of_chunk ON pieces (chunk_id);

-- Vectors where the server has no pgvector: read as a whole and compared outside the database.
CREATE TABLE piece_vectors_json (
    piece_id   bigint PRIMARY KEY REFERENCES pieces (id) ON DELETE CASCADE,
    model      text NOT NULL,
    dimensions integer NOT NULL,
    embedding  jsonb NOT NULL
);

-- Documents taken in before have no pieces: no hash of theirs is known, so that the next start reads them again.
UPDATE documents SET content_hash = '';
