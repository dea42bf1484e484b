-- A step of nothing but events that webhooks are not told: most steps are, and have no use for the rest of `step`.
local replies = {}
for at = FIRST_ITEM, #ARGV - 1, 7 do
  local topic, ttl = topic_of(ARGV[at + 1], ARGV[at + 2]), ARGV[at + 5]
  if not is_repeated then
    emit(topic, ARGV[at + 3], ARGV[at + 4])
    if ttl ~= '' then
      keep(topic, ARGV[at + 3], ARGV[at + 4], clock() + ttl)
    end
  end
  replies[#replies + 1] = { topic.total, topic.users }
end
store_topics()
store_log()
return replies
