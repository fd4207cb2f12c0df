"""Candidate pairs and triplets: thin calls of the SQL."""
