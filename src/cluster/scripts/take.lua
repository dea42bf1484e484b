-- Hands out facts to the node whose turn it is.
--
-- KEYS: meta, nodes, facts.
-- ARGV: base, node, behind which id ('' for the beginning), how many, '1' to give the turn back instead.
-- Answer: whose turn it is; id, fact, app, channel, value and mark ('1' if it may have been told before) of each.
local META, NODES, FACTS = KEYS[1], KEYS[2], KEYS[3]
local node, after = ARGV[2], ARGV[3]

local owner = call('HGET', META, 'owner')
if ARGV[5] == '1' then
  if owner == node then
    call('HDEL', META, 'owner')
  end
  return { '' }
end
if not call('ZSCORE', NODES, node) then
  return redis.error_reply('FENCED the node has no lease')
end
if owner and owner ~= node and call('ZSCORE', NODES, owner) then
  return { owner }
end

-- Ids are two numbers and a dash.
local function is_behind(id, other)
  local time, number = id:match('^(%d+)-(%d+)$')
  local other_time, other_number = other:match('^(%d+)-(%d+)$')
  time, other_time = tonumber(time), tonumber(other_time)
  return time > other_time or time == other_time and tonumber(number) > tonumber(other_number)
end

-- What was handed out to somebody else, or to an earlier life of the node, may have been told.
local taken = call('HGET', META, 'taken') or '0-0'
local told = call('HGET', META, 'told') or '0-0'
if owner ~= node or after == '' then
  told = taken
  call('HSET', META, 'owner', node, 'told', told)
end
local facts = call('XRANGE', FACTS, after == '' and '-' or '(' .. after, '+', 'COUNT', ARGV[4])
local answer = { node }
for _, entry in ipairs(facts) do
  local id, fields = entry[1], entry[2]
  local mark = fields[10] == '1' or not is_behind(id, told)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = id, fields[2], fields[4]
  answer[n + 4], answer[n + 5], answer[n + 6] = fields[6], fields[8], mark and '1' or ''
end
if #facts > 0 then
  local last = facts[#facts][1]
  if is_behind(last, taken) then
    call('HSET', META, 'taken', last)
  end
end
return answer
