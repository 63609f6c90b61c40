"""How it looks: on the console, in figures, on a page."""
