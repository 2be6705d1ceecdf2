#!lua
-- Finds the partition's table, or begins one. ARGV: an instance id, should there be none.
-- Gives instance, whether it is new.
local META = KEYS[1] .. ':meta'
local known = redis.call('HGET', META, 'instance')
if known then
  return {known, 0}
end
local time = redis.call('TIME')
redis.call('HSET', META, 'instance', ARGV[1], 'wall', time[1] * 1000000 + time[2], 'offset', 0,
  'leapt', 0, 'serial', 0, 'rev', 0, 'tag', '')
return {ARGV[1], 1}
