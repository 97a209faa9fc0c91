"""Raw files as streams of Arrow record batches."""
