"""What a run will need of hardware that is not there: memory, collectives, seconds a step."""
