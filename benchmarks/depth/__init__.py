"""A small monocular depth model, trained here on procedurally generated scenes with exact depth."""
