#!lua
-- Registers logins. ARGV: nonce, the bound of networks of a user (0: counted elsewhere), of logins;
-- then for each login: place, user, age, lifetime, epoch,
-- session id, 1 if an open session renews, the rest.
-- Gives now, how many logins there are, then for each: outcome, microseconds that remain, whether
-- it renewed.
-- What lay in a socket while this server stood still is as old as it is.
local nonce, sent = ARGV[4], math.min(now, SENT)
local max_networks, max_logins = tonumber(ARGV[5]), tonumber(ARGV[6])
local marks = redis.call('ZCARD', MADE) > 0
local size = redis.call('ZCARD', ENDS)

local function refused(user, network, verified, epoch)
  local about_user, about_network = '\0' .. user, string.char(#network) .. network
  local found = redis.call('HMGET', MARKS, '0' .. about_user, '1' .. about_user,
    '0' .. about_network, '1' .. about_network,
    '0' .. about_network .. user, '1' .. about_network .. user)
  for index = 1, 6 do
    if found[index] then
      local made, mark_epoch = read_mark(found[index])
      if made + MARK_LIFETIME > now and covers(made, mark_epoch, verified, epoch) then
        return true
      end
    end
  end
  return false
end

-- Takes away the oldest login of a user who comes from too many networks.
local function make_room(user)
  local of = P .. ':of:' .. user
  redis.call('ZREMRANGEBYSCORE', of, '-inf', now)
  local count = redis.call('ZCARD', of)
  if user == '\0' or max_networks == 0 or count < max_networks then
    return ''
  end
  local place = redis.call('ZRANGE', of, 0, 0)[1]
  remove(place, user)
  size = size - 1
  return member_of(place, user)
end

local function put(place, user, login, expires)
  local at, of = P .. ':at:' .. place, P .. ':of:' .. user
  redis.call('HSET', at, user, login)
  local ttl = math.floor((expires - now + TTL_GRACE) / 1000)
  if redis.call('PTTL', at) < ttl then
    redis.call('PEXPIRE', at, ttl)
  end
  redis.call('ZADD', of, expires, place)
  if redis.call('PTTL', of) < ttl then
    redis.call('PEXPIRE', of, ttl)
  end
  redis.call('ZADD', ENDS, expires, member_of(place, user))
end

local function register(place, user, age, lifetime, epoch, session, renewal, rest)
  local verified = sent - age
  if marks and refused(user, network_of(place), verified, epoch) then
    return {'revoked', 0, 0}
  end
  local expires = (renewal and sent or verified) + lifetime
  if expires <= now then
    return {'expired', 0, 0}
  end
  local at = P .. ':at:' .. place
  local earlier = redis.call('HGET', at, user)
  earlier = earlier and read_login(earlier)
  if earlier and earlier.expires <= now then
    remove(place, user)
    size = size - 1
    earlier = false
  end
  local gone, renewed = '', 1
  if not earlier then
    if size >= max_logins then
      return {'full', 0, 0}
    end
    gone, renewed = make_room(user), 0
    serial, size = serial + 1, size + 1
    redis.call('ZADD', ALL, 0, member_of(place, user))
    redis.call('ZREM', GONE, place)
    earlier = {serial = serial, verified = verified, expires = expires, epoch = epoch,
      session = session, rest = rest}
  else
    local repeated = session ~= '' and session == earlier.session
    expires = math.max(expires, earlier.expires)
    if (repeated and not renewal)
      or ((repeated or verified < earlier.verified) and expires == earlier.expires) then
      return {'registered', earlier.expires - now, 1}
    end
    earlier.expires = expires
    if not repeated and verified >= earlier.verified then
      if epoch >= 0 and earlier.epoch > epoch then
        epoch = earlier.epoch
      end
      earlier.verified, earlier.epoch = verified, epoch
      earlier.session, earlier.rest = session, rest
    end
  end
  local login = struct.pack('>dddds', earlier.serial, earlier.verified, expires, earlier.epoch,
    earlier.session) .. earlier.rest
  put(place, user, login, expires)
  tell(nonce, 'login', member_of(place, user), 'as', login, 'gone', gone)
  return {'registered', expires - now, renewed}
end

size = size - sweep(64)
while size >= max_logins and sweep(256) > 0 do
  size = redis.call('ZCARD', ENDS)
end
local results = {}
for index = 7, #ARGV, 8 do
  results[#results + 1] = register(ARGV[index], ARGV[index + 1], tonumber(ARGV[index + 2]),
    tonumber(ARGV[index + 3]), tonumber(ARGV[index + 4]), ARGV[index + 5],
    ARGV[index + 6] == '1', ARGV[index + 7])
end
save()
return {now, size, results}
