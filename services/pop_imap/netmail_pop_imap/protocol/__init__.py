"""Sans-IO protocol code: bytes in, events and bytes out. Imports no asyncio."""
