"""Retrieval metrics, index recall, gates, reports."""
