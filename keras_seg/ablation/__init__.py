"""Staged ablation studies: what a stage is, how it is run, what is reported."""
