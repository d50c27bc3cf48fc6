"""Short clips of synthetic people in SURREAL's on-disk format.

`python -m keras_seg.synthetic --help` makes them. Everything is made from the small
assets in this package (see NOTICE); nothing is downloaded. A leaf: knows no network
and no training.
"""
