"""Data to and from where it lives: blobs, web files, other object stores."""
