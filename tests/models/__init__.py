"""Whatever model: the right answer or a clear no."""
