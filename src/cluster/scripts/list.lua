-- The channels of an app that somebody is subscribed to.
--
-- KEYS: topics:<app>.
-- ARGV: base, how names begin.
-- Answer: name, subscriptions and users of each, one after the other.
local wanted = 's' .. ARGV[2]
local topics, answer = call('HGETALL', KEYS[1]), {}
for at = 1, #topics, 2 do
  local field = topics[at]
  if field:sub(1, #wanted) == wanted then
    local _, _, _, subscriptions, users = unpack_from(RECORD, topics[at + 1])
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = field:sub(2), subscriptions, users
  end
end
return answer
