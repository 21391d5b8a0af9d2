"""The database schema as plain SQL files, ``NNNN_name.sql``, and the runner that applies them in order."""
