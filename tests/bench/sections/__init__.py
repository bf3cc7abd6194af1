"""One module per section of the table; each measures both sides in turn."""
