"""One file a stage, each gather (ports) → decide (pure) → record (one transaction)."""
