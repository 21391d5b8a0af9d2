"""Detection: streaming scores for series, pages, forecasts, worlds and root causes."""
