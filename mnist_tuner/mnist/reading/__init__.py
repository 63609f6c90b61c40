"""Data as people have it: files found, read, and brought into one form."""
