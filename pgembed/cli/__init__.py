"""The command line: thin calls of the stages, and the one place that turns errors into exit codes."""
