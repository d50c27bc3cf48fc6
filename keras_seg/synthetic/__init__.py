"""Short clips of synthetic people in SURREAL's on-disk format.

Made by `python -m keras_seg.synthetic` from the small assets in this package (see
NOTICE); nothing is downloaded. Imports no network and no training code.
"""
