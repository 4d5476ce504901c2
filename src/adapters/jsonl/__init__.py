"""Files of rows: JSON Lines, or one JSON array."""
