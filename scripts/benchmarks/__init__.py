"""What the READMEs' figures are measured by: `scripts/benchmark --help`."""
