-- How every step begins: the number, the topics, what is sent and logged.
--
-- KEYS: held:<node>, meta, log:0, log:1, then what else the items may touch.
-- ARGV: base, node, number, bytes of each part of the log, the command that publishes, nonce (8 bytes), debounce (ms),
-- most facts, then the items, one after the other, and the run: '' if the server does not say it.
-- Answer: a reply for each item that has one.
local HELD, META = KEYS[1], KEYS[2]
local FIRST_ITEM = 9
local number, log_bytes, publish = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

-- The number is written first: with no memory left Redis refuses that, and nothing is done by halves.
local last = call('HGET', HELD, '#')
if not last then
  return redis.error_reply('FENCED the node has no lease')
end
-- Behind it, which of the step's holds were refused.
local done = tonumber(last) or tonumber(last:match('^%d+'))
local is_repeated = done == number
if not is_repeated then
  if done + 1 ~= number then
    return redis.error_reply(string.format('BEHIND %.0f', done))
  end
  call('HSET', HELD, '#', ARGV[3])
end

-- A server that took over, or that was started again, may lack the latest messages. So that no number of theirs is given
-- to another message, the messages of each run are of an era of their own, which comes behind those before it. By how much
-- is left to chance: a server that took over may be lost with its era, and the next one must not draw the same.
local ERAS, ERA_STEP_MAX = 1048576, 1024
local state = call('HMGET', META, 'run', 'era', 'log')
local era, log = tonumber(state[2] or 0), tonumber(state[3] or 0)
if ARGV[#ARGV] ~= '' and state[1] ~= ARGV[#ARGV] then
  if state[1] then
    era = (era + 1 + unpack_from('>I4', ARGV[6]) % ERA_STEP_MAX) % ERAS
  end
  call('HSET', META, 'run', ARGV[#ARGV], 'era', era)
end

-- As it is sent: the era in the upper 20 bits.
local function number_of(seq)
  return pack('>I4I4', era * 4096 + math.floor(seq / 4294967296), seq % 4294967296)
end

local function unpack_number(bytes, at)
  local upper, lower = unpack_from('>I4I4', bytes, at)
  return math.floor(upper / 4096), upper % 4096 * 4294967296 + lower
end

local topics = {}

-- How a topic is: app, field, key (app and field, as in held:<node>), hash (where its record is), and the record.
local function topic_of(app, field)
  local key = app .. '\0' .. field
  local topic = topics[key]
  if not topic then
    local is_user = field:byte(2) == 35 -- a #, which begins no other name
    -- Users have a hash of their own: lists of channels need not step over them.
    local hash = base .. (is_user and 'users:' or 'topics:') .. app
    topic = { app = app, field = field, key = key, is_user = is_user, hash = hash }
    topic.era, topic.total, topic.users, topic.flags, topic.told = era, 0, 0, 0, 0
    local packed = call('HGET', hash, field)
    if packed then
      topic.is_stored = true
      topic.epoch, topic.era, topic.seq, topic.total, topic.users, topic.flags, topic.told =
        unpack_from(RECORD, packed)
    end
    topics[key] = topic
  end
  return topic
end

local function store_topics()
  for _, topic in pairs(topics) do
    if topic.is_changed then
      if topic.total > 0 then
        local packed =
          pack(RECORD, topic.epoch, topic.era, topic.seq, topic.total, topic.users, topic.flags, topic.told)
        call('HSET', topic.hash, topic.field, packed)
      elseif topic.is_stored then
        call('HDEL', topic.hash, topic.field)
      end
    end
  end
end

-- What waits to be written to the log.
local entries, entries_bytes = {}, 0

-- The next message of a topic, if anybody listens. `head` is version and kind.
local function emit(topic, head, tail)
  if topic.total == 0 then
    return
  end
  topic.era, topic.seq = era, topic.seq + 1
  topic.is_changed = true
  local envelope = head .. topic.epoch .. number_of(topic.seq) .. tail
  call(publish, base .. 'bus:' .. topic.app .. ':' .. topic.field, envelope)
  if log_bytes > 0 then
    local entry = topic.key .. '\0' .. envelope
    entries[#entries + 1] = entry
    entries_bytes = entries_bytes + #entry
  end
end

-- Which part of the log is written to, and its bytes.
local function log_state()
  return log % 2, math.floor(log / 2)
end

local function store_log()
  if #entries == 0 then
    return
  end
  local part, bytes = log_state()
  if bytes > log_bytes then
    part, bytes = 1 - part, 0
    call('UNLINK', KEYS[3 + part])
  end
  for from = 1, #entries, 1000 do
    call('RPUSH', KEYS[3 + part], unpack(entries, from, math.min(from + 999, #entries)))
  end
  log = (bytes + entries_bytes) * 2 + part
  call('HSET', META, 'log', log)
  entries, entries_bytes = {}, 0
end

local function cache_of(topic)
  return base .. 'cache:' .. topic.app .. ':' .. topic.field:sub(2)
end

-- Keeps an event for later subscribers. The time is kept along, so that one look tells what is there and for how long.
local function keep(topic, head, tail, till)
  call('SET', cache_of(topic), 'e' .. pack('>I6', till) .. head .. tail, 'PXAT', till)
end

