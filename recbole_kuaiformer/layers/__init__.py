"""Building blocks of the encoders: torch only, with no notion of items or users."""
