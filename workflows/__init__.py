"""What happens next, and when: workflows carry time and order, never rules."""
