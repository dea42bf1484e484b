-- Forgets facts that were told.
--
-- KEYS: facts.
-- ARGV: base, their ids, the run.
for at = 2, #ARGV - 1 do
  call('XDEL', KEYS[1], ARGV[at])
end
return redis.status_reply('OK')
