#!lua
-- Takes away a user's login unless it was renewed meanwhile. ARGV: nonce, place, user, when it
-- expires, within a second. Gives now.
local nonce, place, user = ARGV[4], ARGV[5], ARGV[6]
local login = redis.call('HGET', P .. ':at:' .. place, user)
if login and read_login(login).expires <= tonumber(ARGV[7]) + 1000000 then
  remove(place, user)
  tell(nonce, 'evicted', member_of(place, user))
  save()
end
return {now}
