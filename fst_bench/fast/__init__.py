"""The fast part: a population of prompts, evolved by gepa with the current policy and a reflector."""
