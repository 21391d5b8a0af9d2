-- requires: vector

DROP TABLE chunk_vectors;

-- The size of a vector is its model's property, so the column takes any; one row a piece, of the model in use.
-- The document stands here too, for searches among some documents only.
CREATE TABLE piece_vectors (
    piece_id    bigint PRIMARY KEY REFERENCES pieces (id) ON DELETE CASCADE,
    document_id bigint NOT NULL,
    model       text NOT NULL,
    embedding   vector NOT NULL,
    dimensions  integer NOT NULL GENERATED ALWAYS AS (vector_dims(embedding)) STORED
);
CREATE INDEX piece_vectors_of_document ON piece_vectors (document_id);

-- HNSW needs one fixed size: 384 is that of all-MiniLM-L6-v2; another gets its index when a model first needs it.
-- Half precision finds the same neighbours with half the index.
CREATE INDEX piece_vectors_hnsw_384 ON piece_vectors USING hnsw ((embedding::halfvec(384)) halfvec_cosine_ops)
    WITH (ef_construction = 128) WHERE dimensions = 384;
