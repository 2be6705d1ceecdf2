#!lua flags=allow-oom
-- Gives revocations. ARGV: a cursor, how many, about. Gives now, the next cursor (0: the end),
-- subjects and marks.
local found = redis.call('HSCAN', MARKS, ARGV[3], 'COUNT', ARGV[4])
save_clock()
return {now, found[1], found[2]}
