-- Takes or renews the lease of a node.
--
-- KEYS: meta, nodes, held:<node>.
-- ARGV: base, node, lease (ms), number of its last step, generation if there is none yet, layout.
-- Answer: the generation, and what the node holds: names and values, as they are.
local META, NODES, HELD = KEYS[1], KEYS[2], KEYS[3]
local node, layout = ARGV[2], ARGV[6]

local found = call('HGET', META, 'layout')
if found and found ~= layout then
  return redis.error_reply('LAYOUT ' .. found)
end
call('HSET', HELD, '#', ARGV[4])
if not found then
  call('HSET', META, 'layout', layout, 'gen', ARGV[5])
end
call('ZADD', NODES, clock() + ARGV[3], node)
return { call('HGET', META, 'gen'), call('HGETALL', HELD) }
