"""Reindex, generations, index, search."""
