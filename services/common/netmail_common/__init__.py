"""What every NetMail agent shares: configuration, logging, metrics, gRPC, SASL, PROXY protocol, addresses."""
