"""Pictures of hard subjects before and after normalisers, with counts of wrong colours."""
