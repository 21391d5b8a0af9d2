"""Measurements: speed and quality, each beside a named baseline of the same run."""
