-- Every key of a partition begins alike; KEYS[1] is always tm:{p}:meta.
local P = string.sub(KEYS[1], 1, -5)
