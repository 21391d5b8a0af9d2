"""Ports in this process alone, held to what the real ones do by the same contract tests."""
