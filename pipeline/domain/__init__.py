"""Frozen types and pure rules. Imports the standard library, numpy and pydantic only."""
