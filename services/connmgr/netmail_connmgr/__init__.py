"""Connection Manager: remembers who logged in from where."""
