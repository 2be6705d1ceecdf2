"""SMTP Agent: receives, decides about relaying, sends."""
