"""Retrieval metrics over held-out code and outside data sets, their uncertainty, and comparisons."""
