"""One training run: train, resume, evaluate, predict, export."""
