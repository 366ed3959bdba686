"""Named, versioned things: codes, environments, data, models, components (wire.md 3)."""
