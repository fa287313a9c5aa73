"""Run directories: reading them back and turning them into something to look at."""
