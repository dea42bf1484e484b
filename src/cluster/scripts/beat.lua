-- Renews a lease, and tells what is due and who is dead.
--
-- KEYS: meta, nodes, held:<node>, due, facts, grave.
-- ARGV: base, node, lease (ms), most of what is due or dead to be told.
-- Answer: the node's last step; names of nodes, each with what is left of its lease (ms); what is due; in how many ms
-- the next is due, or -1; who lies in the grave, or nothing; some of what it held; facts lost, facts waiting.
local META, NODES, HELD, DUE, FACTS, GRAVE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local node, most = ARGV[2], tonumber(ARGV[4])

local step = call('HGET', HELD, '#')
if not step or not call('ZSCORE', NODES, node) then
  return redis.error_reply('FENCED the node has no lease')
end
local now = clock()
call('ZADD', NODES, now + ARGV[3], node)

local nodes = call('ZRANGE', NODES, 0, -1, 'WITHSCORES')
for at = 2, #nodes, 2 do
  nodes[at] = nodes[at] - now
end

-- One more than may be told, which is the next one.
local first = call('ZRANGE', DUE, 0, most, 'WITHSCORES')
local due, next_due = {}, -1
for at = 1, #first, 2 do
  if tonumber(first[at + 1]) > now or #due == most then
    next_due = math.max(first[at + 1] - now, 0)
    break
  end
  due[#due + 1] = first[at]
end

local dead = call('HGET', META, 'dead')
-- Any of them, so that several nodes seldom remove the same.
local left = dead and call('HRANDFIELD', GRAVE, most) or {}
local lost = tonumber(call('HGET', META, 'lost') or 0)
return { step, nodes, due, next_due, dead, left, lost, call('XLEN', FACTS) }
