#!lua
-- Counts the networks of users, for partitions elsewhere too. ARGV: how many networks a user may
-- have, then for each login: user, place, when it expires. P:nets:USER is a sorted set: place by
-- when the login there expires.
-- Gives now, then for each login: places that are too many, the oldest first, each with its expiry.
local limit = tonumber(ARGV[4])
local results = {}
for index = 5, #ARGV, 3 do
  local nets, expires = P .. ':nets:' .. ARGV[index], tonumber(ARGV[index + 2])
  redis.call('ZREMRANGEBYSCORE', nets, '-inf', now)
  redis.call('ZADD', nets, expires, ARGV[index + 1])
  local ttl = math.floor((expires - now + TTL_GRACE) / 1000)
  if redis.call('PTTL', nets) < ttl then
    redis.call('PEXPIRE', nets, ttl)
  end
  local surplus = redis.call('ZCARD', nets) - limit
  local oldest = {}
  if surplus > 0 then
    oldest = redis.call('ZPOPMIN', nets, surplus)
  end
  results[#results + 1] = oldest
end
save_clock()
return {now, results}
