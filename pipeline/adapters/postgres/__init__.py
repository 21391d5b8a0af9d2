"""The durable store on PostgreSQL (asyncpg). One class per store of ``pipeline.ports.store``."""
