-- How bands are spelt.
--- @include "lib/tag"

-- What a band's member in `bands:<queue>` says: priority and band type, the limiters of its lanes (`~name…` or empty), `*` if it has a ring.
local function parts_of(band)
  return string.match(band, '^([^~*]+)([^*]*)(%*?)$')
end
