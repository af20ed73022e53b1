-- Answers of scripts; `store/status.py` says the same.
local STATUS = {
  OK = 0, ALREADY = 1, DUPLICATE = 2, REUSED = 3, STALE = 4, STALE_OP = 5, GONE = 6, CONFLICT = 7, REJECTED = 8, TOO_OLD = 9,
  UNREGISTERED = 10, GENERATION = 11, CANCELLING = 12, CANCEL = 13, ABORTED = 14,
  REWOUND = 15, DONE = 16, UNKNOWN = 17,
}
