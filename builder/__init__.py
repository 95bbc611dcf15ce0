"""What warms, verifies and reports on the model volume goes here."""
