"""A saved model in use: it reads pictures, is tested again, is exported."""
