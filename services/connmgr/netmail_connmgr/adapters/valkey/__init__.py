"""The login table in a Valkey or Redis that any number of Connection Managers share."""
