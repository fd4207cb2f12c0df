"""Files to chunks to token sets to rows."""
