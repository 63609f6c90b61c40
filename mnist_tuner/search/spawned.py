"""What worker processes import in place of the program's main module."""
