-- Every command that the scripts of the cluster use, on keys of nobody's, which are gone afterwards.
--
-- KEYS: a hash, a list, a sorted set, a stream, a text, another name, and the partition's meta.
-- ARGV: PUBLISH or SPUBLISH, a topic, a message.
-- Answer: what INFO says, the layout of the state, and the first command that was refused.
local h, l, z, x, s, o = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local refusal = false
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err and not refusal then
    refusal = select(1, ...) .. ' ' .. answer.err
  end
  return answer
end

try('TIME')
try('HSET', h, 'a', 1)
try('HSETNX', h, 'b', 1)
try('HINCRBY', h, 'a', 1)
try('HGET', h, 'a')
try('HMGET', h, 'a')
try('HGETALL', h)
try('HEXISTS', h, 'a')
try('HKEYS', h)
try('HLEN', h)
try('HRANDFIELD', h)
try('HDEL', h, 'b')
try('RPUSH', l, 'a')
try('LLEN', l)
try('LRANGE', l, 0, -1)
try('ZADD', z, 1, 'a')
try('ZRANGE', z, 0, -1)
try('ZSCORE', z, 'a')
try('ZREM', z, 'b')
try('XADD', x, '*', 'a', 1)
try('XRANGE', x, '-', '+')
try('XDEL', x, '0-1')
try('XLEN', x)
try('SET', s, 1, 'PX', 60000)
try('GET', s)
try('EXISTS', s)
try('RENAME', h, o)
try('UNLINK', h, l, z, x)
try('DEL', s, o)
try(ARGV[1], ARGV[2], ARGV[3])
local layout = try('HGET', KEYS[7], 'layout')
local info = redis.pcall('INFO')
if type(info) ~= 'string' then
  info = ''
end
if type(layout) ~= 'string' then
  layout = ''
end
return { info, layout, refusal or '' }
