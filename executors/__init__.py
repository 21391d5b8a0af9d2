"""Everything after approval: guardrails, the runner, recovery, rollback, and the targets."""
