-- Forgets facts that were told.
--
-- KEYS: facts.
-- ARGV: base, their ids.
for at = 2, #ARGV do
  call('XDEL', KEYS[1], ARGV[at])
end
return redis.status_reply('OK')
