"""NMAP Agent: directory, mail store, queue."""
