"""Alignment: losses, advantages, preferences, examples, chat templates and rewards."""
