-- requires: vector

CREATE EXTENSION IF NOT EXISTS vector;

-- The size of a vector is its model's property, so the column takes any; one row a chunk, of the model in use.
CREATE TABLE chunk_vectors (
    chunk_id   bigint PRIMARY KEY REFERENCES chunks (id) ON DELETE CASCADE,
    model      text NOT NULL,
    embedding  vector NOT NULL,
    dimensions integer NOT NULL GENERATED ALWAYS AS (vector_dims(embedding)) STORED
);

-- HNSW needs one fixed size: 384 is that of all-MiniLM-L6-v2, the default. Other sizes are searched exactly.
CREATE INDEX chunk_vectors_hnsw_384 ON chunk_vectors USING hnsw ((embedding::vector(384)) vector_cosine_ops)
    WHERE dimensions = 384;
