-- Gives a lease back, if the node holds nothing.
--
-- KEYS: meta, nodes, held:<node>.
-- ARGV: base, node.
local META, NODES, HELD = KEYS[1], KEYS[2], KEYS[3]
local node = ARGV[2]

if call('HLEN', HELD) == 1 and call('HEXISTS', HELD, '#') == 1 then
  call('DEL', HELD)
  call('ZREM', NODES, node)
  if call('HGET', META, 'owner') == node then
    call('HDEL', META, 'owner')
  end
end
return redis.status_reply('OK')
