"""The console runner: train the baseline, search its widths, report."""
