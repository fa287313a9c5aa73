"""Files: decompressed, recognised by content, downloaded, locked."""
