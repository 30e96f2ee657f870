"""One run: from its settings to stored rows."""
