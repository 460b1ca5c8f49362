"""A backend, a dataset source and a metric of another distribution than captionkit."""
