"""What the runs of a stage show: intervals, claims, tables, charts, the page."""
