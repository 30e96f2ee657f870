"""Results on disk: written whole or not at all, found again, joined and handed on."""
