"""Readers of files from elsewhere: they make numbers, text and lists, and call nothing."""
