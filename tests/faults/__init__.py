"""The fault suite: the real commands on a real server, struck at random moments, then run again to the end.

    python -m tests.faults --trials 5

world.py     the throw-away server, corpus and model; each station's database as it is before the station
stations.py  the five commands, and what each must have come to
strikes.py   what is done to them
nursery.py   starts a command as a process of its own, without waiting for its imports
machine.c    what the operating system tells: a clock that jumps, a disk that is full
trials.py    one trial: strike, run again, hold the result to an undisturbed run's
table.py     what came of all
"""
