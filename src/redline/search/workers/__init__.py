"""Processes that run trials: here, or as the jobs of a cluster."""
