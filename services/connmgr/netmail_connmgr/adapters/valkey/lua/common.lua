-- What every script begins with. KEYS[1] is the partition's prefix; ARGV[1] the instance that the
-- caller knows, ARGV[2] a login's lifetime, ARGV[3] when it called, by its idea of this partition's
-- clock, which is never behind. Times are microseconds on that clock.
--
-- P:meta           instance; wall, offset and leapt: the clock; serial; rev and tag: of the log's
--                  last entry
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
local LIFETIME, SENT = tonumber(ARGV[2]), tonumber(ARGV[3])
local MARK_LIFETIME = 86400000000
local TTL_GRACE = 60000000
local PAUSE = 2000000
local KEEP_LOG, KEEP_GONE = 100000, 65536

local meta = redis.call('HMGET', META, 'instance', 'wall', 'offset', 'leapt', 'serial', 'rev', 'tag')
if meta[1] ~= ARGV[1] then
  return redis.error_reply('NOINSTANCE the table is another one')
end
local serial, rev, tag = tonumber(meta[5]), tonumber(meta[6]), meta[7]

-- The server's wall clock, made to go on evenly. Set back, it goes on from where it was, and the
-- caller says how much it missed meanwhile. Set forward, all logins are as much older as that, at
-- most a lifetime, by which every one is over. But whoever was revoked stays so: revocations are
-- taken as made that much later. After a pause without calls it is the same, since nobody can tell.
local time = redis.call('TIME')
local wall, offset, leapt = time[1] * 1000000 + time[2], tonumber(meta[3]), tonumber(meta[4])
local since = wall - tonumber(meta[2])
if since < 0 then
  local missed = SENT - (wall - since + offset)
  offset = offset - since + math.max(0, math.min(missed, PAUSE))
elseif since > PAUSE then
  local over = math.max(0, since - LIFETIME)
  offset = offset - over
  leapt = leapt + since - over
end
local now = wall + offset

local function save()
  redis.call('HSET', META, 'wall', wall, 'offset', offset, 'leapt', leapt, 'serial', serial,
    'rev', rev, 'tag', tag)
end

local function save_clock()
  if since < 0 or since > 100000 then
    redis.call('HSET', META, 'wall', wall, 'offset', offset, 'leapt', leapt)
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

-- When a revocation counts as made, and its epoch.
local function read_mark(mark)
  local made, epoch, leapt_then = struct.unpack('>ddd', mark)
  return made + leapt - leapt_then, epoch
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
  local old = redis.call('ZRANGEBYSCORE', MADE, '-inf', now - leapt - MARK_LIFETIME, 'LIMIT', 0, 100)
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
