"""Metrics, logs and traces of the services under watch: one source a file, and the pure parts they share."""
