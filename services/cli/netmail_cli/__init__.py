"""netmail: runs and administers an installation."""
