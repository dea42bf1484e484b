-- What every script begins with. ARGV[1] is what the keys and bus topics of the partition begin with; the last argument
-- is the run of this server.
local call = redis.call
local pack, unpack_from = struct.pack, struct.unpack
local base = ARGV[1]

-- Milliseconds since 1970. No node's clock counts for anything here.
local function clock()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A topic that somebody holds: the epoch, era and number of its last message, subscriptions, users, flags (see step.lua),
-- and when the count was last told.
local RECORD = '>c8I4I6I4I4I1I6'

