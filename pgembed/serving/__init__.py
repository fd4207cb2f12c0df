"""`pgembed serve`: search, triplets, training and the index over HTTP, and one page for people.

A layer of its own between the commands and the stages: it calls the stages, and only `cli` calls it. Needs no torch.
"""
