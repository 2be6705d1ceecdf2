"""PostgreSQL with Patroni and Redis with Sentinel, from Debian, in pods; for the tests only."""
