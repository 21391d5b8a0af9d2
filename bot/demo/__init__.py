"""The world that runs with no account: local Slack, sample services, faults, and the launcher of it all."""
