"""How fast this machine trains and predicts, beside PyTorch: `keras-seg benchmark`."""
