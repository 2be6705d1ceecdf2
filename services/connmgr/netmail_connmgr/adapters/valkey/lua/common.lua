-- What every script begins with. KEYS[1] is the partition's prefix; ARGV[1] the instance that the
-- caller knows, ARGV[2] a login's lifetime. Times are microseconds on the partition's own clock.
--
-- P:meta           instance; wall and offset: the clock; serial; rev and tag: of the log's last entry
-- P:at:PLACE       hash: user -> login
-- P:of:USER        sorted set: place by when its login expires
-- P:all            sorted set of members in their own order, for listing
-- P:ends           sorted set: member by when it expires
-- P:gone           sorted set: place by when its last login expired, for a while
-- P:marks, P:made  hash: subject -> revocation; sorted set: subject by when it was revoked
-- P:log            stream of changes; the ids are REVISION-1
--
-- A member is the length of a place, the place, the user. A login is serial, verified, expires,
-- epoch (-1: none), session id, and what only the clients read. A subject is 1 or 0 (by epoch or
-- by age), the length of a network, the network, the user.
local P = KEYS[1]
local META, ALL, ENDS, GONE = P .. ':meta', P .. ':all', P .. ':ends', P .. ':gone'
local MARKS, MADE, LOG = P .. ':marks', P .. ':made', P .. ':log'
local LIFETIME = tonumber(ARGV[2])
local MARK_LIFETIME = 86400000000
local TTL_GRACE = 60000000
local KEEP_LOG, KEEP_GONE = 100000, 65536

local meta = redis.call('HMGET', META, 'instance', 'wall', 'offset', 'serial', 'rev', 'tag')
if meta[1] ~= ARGV[1] then
  return redis.error_reply('NOINSTANCE the table is another one')
end
local serial, rev, tag = tonumber(meta[4]), tonumber(meta[5]), meta[6]

-- The server's wall clock, made to go on evenly: set back, it goes on from where it was; after a
-- leap it has gone on for one lifetime, by which every login is over and no revocation is.
local time = redis.call('TIME')
local wall, offset = time[1] * 1000000 + time[2], tonumber(meta[3])
local since = wall - tonumber(meta[2])
if since < 0 then
  offset = offset - since
elseif since > LIFETIME then
  offset = offset - (since - LIFETIME)
end
local now = wall + offset

local function save()
  redis.call('HSET', META, 'wall', wall, 'offset', offset, 'serial', serial, 'rev', rev, 'tag', tag)
end

local function save_clock()
  if since < 0 or since > 100000 then
    redis.call('HSET', META, 'wall', wall, 'offset', offset)
  end
end

local function member_of(place, user)
  return string.char(#place) .. place .. user
end

local function network_of(place)
  if #place == 5 or #place == 17 then
    return string.sub(place, 1, -2)
  end
  return place
end

local function read_login(login)
  local fields = {}
  local after
  fields.serial, fields.verified, fields.expires, fields.epoch, fields.session, after =
    struct.unpack('>dddds', login)
  fields.rest = string.sub(login, after)
  return fields
end

local function covers(made, mark_epoch, verified, epoch)
  if mark_epoch > 0 and epoch >= 0 then
    return epoch < mark_epoch
  end
  return verified <= made
end

local function remove(place, user)
  redis.call('HDEL', P .. ':at:' .. place, user)
  redis.call('ZREM', P .. ':of:' .. user, place)
  redis.call('ZREM', ALL, member_of(place, user))
  redis.call('ZREM', ENDS, member_of(place, user))
end

-- Cleans up logins that are over, at most LIMIT; how many it were.
local function sweep(limit)
  local over = redis.call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, limit)
  for _, member in ipairs(over) do
    local length = string.byte(member)
    local place = string.sub(member, 2, length + 1)
    remove(place, string.sub(member, length + 2))
    if redis.call('EXISTS', P .. ':at:' .. place) == 0 then
      redis.call('ZADD', GONE, now, place)
    end
  end
  if #over > 0 then
    redis.call('ZREMRANGEBYSCORE', GONE, '-inf', now - LIFETIME)
    redis.call('ZREMRANGEBYRANK', GONE, 0, -KEEP_GONE - 1)
  end
  return #over
end

local function forget_marks()
  local old = redis.call('ZRANGEBYSCORE', MADE, '-inf', now - MARK_LIFETIME, 'LIMIT', 0, 100)
  for _, subject in ipairs(old) do
    redis.call('HDEL', MARKS, subject)
    redis.call('ZREM', MADE, subject)
  end
end

local function tell(nonce, ...)
  rev = rev + 1
  tag = nonce .. ':' .. string.format('%.0f', rev)
  local id = string.format('%.0f-1', rev)
  redis.call('XADD', LOG, 'MAXLEN', '~', KEEP_LOG, id, 'tag', tag, ...)
end
