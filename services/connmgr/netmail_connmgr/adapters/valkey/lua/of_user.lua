#!lua flags=allow-oom
-- Gives a user's logins. ARGV: user. Gives now, then members and logins.
local found = {}
for _, place in ipairs(redis.call('ZRANGE', P .. ':of:' .. ARGV[4], 0, -1)) do
  local login = redis.call('HGET', P .. ':at:' .. place, ARGV[4])
  if login then
    found[#found + 1] = member_of(place, ARGV[4])
    found[#found + 1] = login
  end
end
save_clock()
return {now, found}
