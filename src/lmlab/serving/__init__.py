"""An OpenAI-compatible server of trained runs, and a page to sample them in a browser."""
