"""Servers that run as children of ours when none is configured."""
