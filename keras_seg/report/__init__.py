"""What the runs of a stage show: comparisons, claims, tables, charts, the page."""
