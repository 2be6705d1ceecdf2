"""The commands of `netmail`, one module for each noun."""
