"""Everything about a GPU in one run: built, correct, clean under the sanitizer, then timed."""
