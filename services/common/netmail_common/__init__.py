"""What every NetMail agent shares: configuration, logging, metrics, gRPC, SASL, addresses."""
