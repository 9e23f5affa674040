"""One verb a file: read folders, call, write one."""
