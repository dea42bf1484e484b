-- A step of a node: with `publish`, the only script that changes topics. All of it happens at once, in the order of its
-- items.
--
-- KEYS, behind those of `topics`: due, facts, nodes, grave.
local DUE, FACTS, NODES, GRAVE = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local debounce, facts_max = tonumber(ARGV[7]), tonumber(ARGV[8])
local TELLS, COUNTS, CHANGED = 1, 2, 4
local ADDED, REMOVED, COUNT, ONLINE, OFFLINE = '\1\3', '\1\4', '\1\5', '\1\6', '\1\7'
-- Nobody is left out.
local ALL = string.rep('\0', 16)
local MISS_QUIET_MS, COUNTED_AT_ONCE, COUNT_PAUSE_MS = 10000, 100, 5000
-- How a hold was said, see mirror::Again.
local SILENTLY, MARKED = '1', '2'
local now = clock()

local function has(flags, flag)
  return flags % (2 * flag) >= flag
end

local epochs = 0
-- The upper half of the nonce, and the lower half counted on: no two of a step are the same.
local function next_epoch()
  local lower = unpack_from('>I4', ARGV[6], 5)
  epochs = epochs + 1
  return ARGV[6]:sub(1, 4) .. pack('>I4', (lower + epochs) % 4294967296)
end

local facts, are_told
-- Writes down for webhooks what has happened. `mark` is '1' if they may know already.
local function tell(topic, fact, value, mark)
  facts = facts or call('XLEN', FACTS)
  if facts >= facts_max then
    call('HINCRBY', META, 'lost', 1)
    return
  end
  local channel = topic.field:sub(2)
  call('XADD', FACTS, '*', 'fact', fact, 'app', topic.app, 'channel', channel, 'value', value, 'again', mark)
  facts, are_told = facts + 1, true
end

-- What is due is called by a letter, the topic's key and, behind a zero, the user. The letter after it is the same with
-- a mark. By their names counts come before members, and members before the channel.
local DUE_COUNT, DUE_REMOVED, DUE_VACATED = 'c', 'm', 'v'
local MARKED_AS = { m = 'n', v = 'w' }

local function schedule(letter, name, mark)
  call('ZADD', DUE, now + debounce, (mark == '1' and MARKED_AS[letter] or letter) .. name)
end

-- True if it was due.
local function call_off(letter, name)
  return call('ZREM', DUE, letter .. name, MARKED_AS[letter] .. name) > 0
end

local function members_of(topic)
  return base .. 'members:' .. topic.app .. ':' .. topic.field:sub(2)
end

-- Tells the subscriptions, if that is to be done now rather than later.
local function count(topic, mark)
  local is_late = has(topic.flags, CHANGED)
  if topic.total <= COUNTED_AT_ONCE or now >= topic.told + COUNT_PAUSE_MS then
    topic.told = now
    if is_late then
      topic.flags = topic.flags - CHANGED
      call('ZREM', DUE, DUE_COUNT .. topic.key)
    end
    emit(topic, COUNT, ALL .. pack('>I8', topic.total))
    if topic.total > 0 and mark and has(topic.flags, TELLS) then
      tell(topic, 'subscription_count', topic.total, mark)
    end
  elseif not is_late then
    topic.flags = topic.flags + CHANGED
    call('ZADD', DUE, topic.told + COUNT_PAUSE_MS, DUE_COUNT .. topic.key)
  end
end

-- To those who watch the user of the topic.
local function tell_watchers(topic, head)
  emit(topic_of(topic.app, 'w' .. topic.field:sub(2)), head, ALL)
end

-- A user's first connection on a node. `known` is what the roster has of the user: on how many nodes it is, and its
-- info. `mark` is nil if webhooks are not to be told.
local function enter(topic, held, user, info, known, mark)
  local name = topic.key .. '\0' .. user
  if call('HSETNX', held, name, 1) == 0 then
    return
  end
  if known then
    call('HSET', members_of(topic), user, pack('>I4', unpack_from('>I4', known) + 1) .. known:sub(5))
    return
  end
  call('HSET', members_of(topic), user, pack('>I4', 1) .. info)
  topic.users = topic.users + 1
  if not call_off(DUE_REMOVED, name) and mark and has(topic.flags, TELLS) then
    tell(topic, 'member_added', user, mark)
  end
  emit(topic, ADDED, ALL .. pack('>I2', #user) .. user .. info)
end

-- A user's last connection on a node has gone.
local function leave(topic, held, user, mark)
  local name = topic.key .. '\0' .. user
  if call('HDEL', held, name) == 0 then
    return
  end
  local known = call('HGET', members_of(topic), user)
  local nodes = unpack_from('>I4', known)
  if nodes > 1 then
    call('HSET', members_of(topic), user, pack('>I4', nodes - 1) .. known:sub(5))
    return
  end
  call('HDEL', members_of(topic), user)
  topic.users = topic.users - 1
  emit(topic, REMOVED, ALL .. user)
  if mark and has(topic.flags, TELLS) then
    schedule(DUE_REMOVED, name, mark)
  end
end

-- So many connections of a node are there now. `user` enters or leaves with that, if `change` is E or L.
-- False if there is no room for the user; then nothing has changed.
local function hold(topic, held, connections, traits, mark, change, user, info, users_max)
  local known = change == 'E' and call('HGET', members_of(topic), user)
  if change == 'E' and not known and topic.users >= users_max then
    return false
  end
  local own = tonumber(call('HGET', held, topic.key) or 0)
  local total = math.max(topic.total - own + connections, 0)
  local is_first, is_last = topic.total == 0 and total > 0, topic.total > 0 and total == 0
  if is_first then
    topic.epoch, topic.era, topic.seq, topic.flags, topic.told = next_epoch(), era, 0, 0, 0
  end
  topic.is_changed = topic.is_changed or total > 0 or is_last
  topic.total = total
  topic.flags = traits + (has(topic.flags, CHANGED) and CHANGED or 0)
  if connections ~= own then
    if connections > 0 then
      call('HSET', held, topic.key, connections)
    else
      call('HDEL', held, topic.key)
    end
  end

  local is_signed_in = topic.is_user and topic.field:byte() == 115 -- s: the user, not who watches
  if is_first and is_signed_in then
    tell_watchers(topic, ONLINE)
  elseif is_first and not topic.is_user then
    if not call_off(DUE_VACATED, topic.key) and mark and has(traits, TELLS) then
      tell(topic, 'channel_occupied', '', mark)
    end
  end
  if change == 'E' then
    enter(topic, held, user, info, known, mark)
  elseif change == 'L' then
    leave(topic, held, user, mark)
  end
  if is_last and is_signed_in then
    tell_watchers(topic, OFFLINE)
  end
  if connections ~= own and has(traits, COUNTS) then
    count(topic, mark)
  end
  if is_last and mark and has(traits, TELLS) then
    schedule(DUE_VACATED, topic.key, mark)
  end
  return true
end

-- The event that a cache channel replays and how much longer; true instead if a miss was told a short while ago.
local function kept(topic)
  local found = call('GET', cache_of(topic))
  local till = found and unpack_from('>I6', found, 2) or 0
  if till <= now then
    return false
  elseif found:byte() == 109 then
    return true
  end
  return found:sub(8), till - now
end

local function miss(topic)
  if not kept(topic) then
    local till = now + MISS_QUIET_MS
    call('SET', cache_of(topic), 'm' .. pack('>I6', till), 'PXAT', till)
    tell(topic, 'cache_miss', '', '')
  end
end

-- Does what is due, if it still is.
local function settle(letter, topic, user)
  local name = topic.key .. (user == '' and '' or '\0' .. user)
  for mark, letter in pairs({ [''] = letter, ['1'] = MARKED_AS[letter] }) do
    local due = call('ZSCORE', DUE, letter .. name)
    if due and tonumber(due) <= now then
      call('ZREM', DUE, letter .. name)
      if letter == DUE_COUNT then
        count(topic, mark)
      elseif user ~= '' then
        tell(topic, 'member_removed', user, mark)
      else
        tell(topic, 'channel_vacated', '', mark)
      end
    end
  end
end

-- Takes a lease away that ran out. There is one grave: who comes later waits, and may still come back.
local function claim(name)
  local till = call('ZSCORE', NODES, name)
  if name == ARGV[2] or not till or tonumber(till) > now or call('HEXISTS', META, 'dead') == 1 then
    return
  end
  local held = base .. 'held:' .. name
  call('ZREM', NODES, name)
  call('HDEL', held, '#')
  if call('EXISTS', held) == 1 then
    call('RENAME', held, GRAVE)
    call('HSET', META, 'dead', name)
  end
end

-- Removes a dead node's part of a topic.
local function bury(name, topic)
  if call('HGET', META, 'dead') ~= name then
    return
  end
  if topic.users > 0 then
    for _, user in ipairs(call('HKEYS', members_of(topic))) do
      leave(topic, GRAVE, user, '')
    end
  end
  hold(topic, GRAVE, 0, topic.flags % CHANGED, '')
  if call('EXISTS', GRAVE) == 0 then
    call('HDEL', META, 'dead')
  end
end

local logged, older
-- Reads the log from its end on, as far as is needed: what it has of a topic, newest first.
local function logged_of(key, wanted)
  if not logged or #entries > 0 then
    store_log()
    logged, older = {}, {}
    local current = log_state()
    for at, part in ipairs({ current, 1 - current }) do
      older[at] = { KEYS[3 + part], call('LLEN', KEYS[3 + part]) }
    end
  end
  while #(logged[key] or {}) < wanted and older[1] do
    local list, to = older[1][1], older[1][2]
    local from = math.max(to - 200, 0)
    local found = to > 0 and call('LRANGE', list, from, to - 1) or {}
    for at = #found, 1, -1 do
      local _, field_end = found[at]:find('\0', found[at]:find('\0', 1, true) + 1, true)
      local of = found[at]:sub(1, field_end - 1)
      logged[of] = logged[of] or {}
      table.insert(logged[of], found[at]:sub(field_end + 1))
    end
    older[1][2] = from
    if from == 0 then
      table.remove(older, 1)
    end
  end
  return logged[key] or {}
end

-- What the log has of a topic behind a place, without a hole up to the last message; and whether that is all.
local function missed(topic, since_era, since_seq)
  local found, of, seq = {}, topic.era, topic.seq
  local function is_all()
    return seq == 0 or of < since_era or of == since_era and seq <= since_seq
  end
  if is_all() or log_bytes == 0 then
    return found, is_all()
  end
  local newest_first, known = {}, 0
  repeat
    newest_first = logged_of(topic.key, known + 1)
    local envelope = newest_first[known + 1]
    if not envelope or envelope:sub(3, 10) ~= topic.epoch then
      break
    end
    local its_era, its_seq = unpack_number(envelope, 11)
    if its_seq ~= seq then
      break
    end
    of = its_era
    if not is_all() then
      known, seq = known + 1, seq - 1
    end
  until is_all()
  for at = known, 1, -1 do
    found[#found + 1] = newest_first[at]
  end
  return found, is_all()
end

local function place(topic)
  return topic.epoch and topic.epoch .. number_of(topic.seq) or ALL
end

-- How a topic is. `since` is a place, or '' if everything is wanted, or 'census' if neither roster nor log is.
local function look(topic, since, is_cached)
  local found, is_all, roster = {}, false, false
  if #since == 16 and since:sub(1, 8) == topic.epoch then
    local since_era, since_seq = unpack_number(since, 9)
    if since_era > era or since_era == era and since_seq > topic.seq then
      -- Redis has lost what the node has heard: nothing of this life can be relied on.
      topic.epoch, topic.era, topic.seq, topic.is_changed = next_epoch(), era, 0, true
    else
      found, is_all = missed(topic, since_era, since_seq)
    end
  end
  if since ~= 'census' and since ~= place(topic) then
    roster = topic.users > 0 and call('HGETALL', members_of(topic)) or {}
  end
  local event, left
  if is_cached == '1' then
    event, left = kept(topic)
  end
  local is_online = topic.field:byte() == 119 and topic_of(topic.app, 's' .. topic.field:sub(2)).total > 0
  return {
    place(topic), topic.total, topic.users, roster, left and event or false, left or 0, is_online and 1 or 0, found,
    is_all and 1 or 0,
  }
end

-- Items by what their first argument says: each takes where its own arguments begin, and returns how many it has. What was
-- done before is only answered.
local items, replies = {}, {}

local function reply(value)
  replies[#replies + 1] = value
end

local holds, refused, refusals = 0, {}, ''
if is_repeated then
  for at in last:gmatch(' (%d+)') do
    refused[tonumber(at)] = true
  end
end

-- app, field, connections, traits, how it was said, change; with a change: user, info, most users.
function items.hold(at)
  local topic, again, change = topic_of(ARGV[at], ARGV[at + 1]), ARGV[at + 4], ARGV[at + 5]
  holds = holds + 1
  if not is_repeated then
    local mark = again == MARKED and '1' or again ~= SILENTLY and '' or nil
    local connections, traits = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local user, info, users_max = ARGV[at + 6], ARGV[at + 7], tonumber(ARGV[at + 8])
    if not hold(topic, HELD, connections, traits, mark, change, user, info, users_max) then
      refused[holds], refusals = true, refusals .. ' ' .. holds
    end
  end
  reply(refused[holds] and '' or place(topic))
  return change == '' and 6 or 9
end

-- app, field, version and kind, tail, time to keep it (ms), what webhooks are told.
function items.publish(at)
  local topic, ttl, fact = topic_of(ARGV[at], ARGV[at + 1]), ARGV[at + 4], ARGV[at + 5]
  if not is_repeated then
    emit(topic, ARGV[at + 2], ARGV[at + 3])
    if ttl ~= '' then
      keep(topic, ARGV[at + 2], ARGV[at + 3], now + ttl)
    end
    if fact ~= '' and topic.total > 0 then
      tell(topic, 'client_event', fact, '')
    end
  end
  reply({ topic.total, topic.users })
  return 6
end

-- app, field.
function items.miss(at)
  if not is_repeated then
    miss(topic_of(ARGV[at], ARGV[at + 1]))
  end
  return 2
end

-- app, field, since when, whether something may be cached.
function items.look(at)
  reply(look(topic_of(ARGV[at], ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]))
  return 4
end

-- letter, app, field, user or nothing.
function items.settle(at)
  if not is_repeated then
    settle(ARGV[at], topic_of(ARGV[at + 1], ARGV[at + 2]), ARGV[at + 3])
  end
  return 4
end

-- node.
function items.claim(at)
  if not is_repeated then
    claim(ARGV[at])
  end
  return 1
end

-- node, app, field.
function items.bury(at)
  if not is_repeated then
    bury(ARGV[at], topic_of(ARGV[at + 1], ARGV[at + 2]))
  end
  return 3
end

local at = FIRST_ITEM
while at < #ARGV do
  at = at + 1 + items[ARGV[at]](at + 1)
end
if refusals ~= '' then
  call('HSET', HELD, '#', ARGV[3] .. refusals)
end
store_topics()
store_log()
if are_told then
  call(publish, base .. 'wake', '')
end
return replies
