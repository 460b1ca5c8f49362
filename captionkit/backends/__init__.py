"""The backends that come with captionkit. They never import one another."""
