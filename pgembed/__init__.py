"""pgembed turns the code a team keeps in Postgres into embeddings that know that code."""

from importlib.metadata import version

__version__ = version("pgembed-code")
