"""What training on many devices needs and takes, before a device is asked for."""
