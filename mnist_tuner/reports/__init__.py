"""What a run showed: computed once as a frozen dataclass, then rendered."""
