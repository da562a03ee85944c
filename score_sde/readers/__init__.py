"""This package reads files of other programs into numbers, text and lists, and executes nothing in the files."""
