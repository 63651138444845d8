"""What workflows have done for them: one class a concern, its dependencies injected."""
