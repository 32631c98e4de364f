"""Redline: the largest learning rate at which a transformer still trains, per normalisation variant."""
